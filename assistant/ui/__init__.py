"""The browser app: Gradio pages over the same services as the HTTP API. One page, one file."""
