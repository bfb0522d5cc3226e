/** Import directions, as docs/design.md draws them: a folder may import what its line names, and nothing else. */
const may = {
  graph: [],
  ops: ['graph'],
  autodiff: ['graph', 'ops'],
  onnx: ['graph', 'ops'],
  optim: ['graph', 'ops', 'runtime'],
  runtime: ['onnx', 'graph', 'ops'],
  nn: ['graph', 'ops'],
  models: ['nn', 'graph', 'ops'],
  config: [],
  data: [],
  text: ['data'],
  checkpoints: ['models', 'runtime', 'graph', 'nn'],
  generation: ['models', 'runtime', 'text', 'graph', 'ops', 'nn', 'onnx', 'checkpoints'],
  rewards: ['generation', 'models', 'runtime', 'text', 'graph', 'ops', 'nn', 'onnx', 'checkpoints'],
  runs: ['config', 'data'],
  evaluation: ['runs', 'data', 'text', 'rewards'],
};

module.exports = {
  forbidden: [
    { name: 'no-circular', severity: 'error', from: {}, to: { circular: true } },
    {
      name: 'no-orphans',
      severity: 'error',
      from: { orphan: true, pathNot: '(\\.d\\.ts$|src/index\\.ts$|cli/main\\.ts$|runtime/worker\\.ts$)' },
      to: {},
    },
    {
      name: 'only-runtime-imports-onnxruntime',
      severity: 'error',
      from: { pathNot: '^src/runtime/' },
      to: { path: 'onnxruntime-(node|web|common)' },
    },
    {
      name: 'a-stage-never-imports-another',
      severity: 'error',
      from: { path: '^src/stages/([^/]+)' },
      to: { path: '^src/stages/', pathNot: '^src/stages/($1|shared/)' },
    },
    {
      name: 'cli-and-pipeline-are-the-top',
      severity: 'error',
      from: { path: '^src/', pathNot: '^src/(cli/|index\\.ts)' },
      to: { path: '^src/cli/' },
    },
    ...Object.entries(may).map(([folder, allowed]) => ({
      name: `${folder}-imports`,
      severity: 'error',
      from: { path: `^src/${folder}/`, pathNot: '\\.test\\.ts$' },
      to: {
        path: '^src/',
        pathNot: `^src/(errors\\.ts|random\\.ts|config/|${[folder, ...allowed].map((f) => `${f}/`).join('|')})`,
      },
    })),
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    exclude: { path: '\\.test\\.ts$' },
    tsConfig: { fileName: 'tsconfig.json' },
    tsPreCompilationDeps: true,
    enhancedResolveOptions: { exportsFields: ['exports'], conditionNames: ['import', 'types', 'node'] },
  },
};
