"""The product: accounts, chat, updates, the HTTP API, the browser pages and the command line."""
