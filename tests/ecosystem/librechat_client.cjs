// What LibreChat does with its librechat.yaml, by its own packages: checks it, chats with its first custom endpoint and
// asks for a title. In: one line of JSON {yaml, baseURL, apiKey, turns}. Out: one line of JSON, or {problems}.
//
// LibreChat's server itself is not on npm; that it fills these options from the file in this way is written after its
// documentation. Run in a folder whose node_modules has the packages (make test-ecosystem).

const { createRequire } = require('node:module');
const packages = createRequire(`${process.cwd()}/`);
const yaml = packages('js-yaml');
const { configSchema } = packages('librechat-data-provider');
const { Run, Providers, GraphEvents, ModelEndHandler, ChatModelStreamHandler } = packages('@librechat/agents');
const { HumanMessage, AIMessage } = packages('@langchain/core/messages');

async function answer(asked) {
  const written = yaml.load(asked.yaml);
  const parsed = configSchema.strict().safeParse(written);
  if (!parsed.success) return { problems: parsed.error.issues };
  const endpoint = parsed.data.endpoints.custom[0];
  const options = {
    model: endpoint.models.default[0],
    apiKey: endpoint.apiKey === 'user_provided' ? asked.apiKey : endpoint.apiKey,
    configuration: { baseURL: asked.baseURL ?? endpoint.baseURL },
    user: '6748a1f0c3',
    streaming: true,
    maxRetries: 0,
    modelKwargs: endpoint.addParams,
  };
  const said = [];
  const results = [];
  let run;
  for (const text of asked.turns) {
    said.push(new HumanMessage({ content: [{ type: 'text', text }] }));
    const pieces = [];
    const usage = [];
    run = await Run.create({
      runId: `run-${results.length}`,
      graphConfig: { type: 'standard', llmConfig: { provider: Providers.OPENAI, ...options }, instructions: 'Be kind.' },
      returnContent: true,
      customHandlers: {
        [GraphEvents.CHAT_MODEL_END]: new ModelEndHandler(usage),
        [GraphEvents.CHAT_MODEL_STREAM]: new ChatModelStreamHandler(),
        [GraphEvents.ON_MESSAGE_DELTA]: {
          handle: (_, data) => pieces.push(...data.delta.content.map((part) => part.text)),
        },
      },
    });
    const config = { configurable: { thread_id: 'c', user_id: options.user }, streamMode: 'values', version: 'v2' };
    const content = await run.processStream({ messages: [...said] }, config);
    said.push(new AIMessage(pieces.join('')));
    results.push({ pieces, content, usage });
  }
  const { title } = await run.generateTitle({
    provider: Providers.OPENAI,
    clientOptions: { ...options, model: endpoint.titleModel, streaming: false },
    inputText: asked.turns.at(-1),
    contentParts: results.at(-1).content,
    titleMethod: endpoint.titleMethod,
    skipLanguage: true,
    chainOptions: { configurable: { thread_id: 'c' } },
  });
  return { written: written.endpoints.custom[0], endpoint, results, title };
}

let read = '';
process.stdin.on('data', (some) => (read += some));
process.stdin.on('end', async () => {
  try {
    console.log(JSON.stringify(await answer(JSON.parse(read))));
  } catch (error) {
    console.log(JSON.stringify({ failed: String(error?.message ?? error), status: error?.status }));
  }
  process.exit(0); // some of the packages keep timers
});
