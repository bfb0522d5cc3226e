/**
 * Import directions, as docs/design.md draws them: a folder may import itself, what its line names and what is common,
 * and nothing else.
 */
const common = ['errors\\.ts$', 'random\\.ts$', 'config/'];

const may = {
  config: [],
  graph: [],
  ops: ['graph'],
  autodiff: ['graph', 'ops'],
  onnx: ['graph', 'ops'],
  runtime: ['onnx', 'graph', 'ops'],
  optim: ['graph', 'ops', 'runtime'],
  nn: ['graph', 'ops'],
  models: ['nn', 'graph', 'ops'],
  transfer: [],
  data: ['transfer'],
  text: ['data'],
  checkpoints: ['models', 'runtime', 'graph', 'nn', 'runs'],
  generation: ['models', 'runtime', 'text', 'graph', 'ops', 'nn', 'onnx', 'checkpoints'],
  rewards: ['generation', 'models', 'runtime', 'text', 'graph', 'ops', 'nn', 'onnx', 'checkpoints'],
  memory: ['graph', 'ops', 'autodiff', 'optim', 'generation', 'models', 'rewards'],
  runs: ['data'],
  hub: ['transfer', 'runs'],
  evaluation: ['runs', 'data', 'text', 'rewards'],
};

const rule = (name, from, to) => ({ name, severity: 'error', from, to });

module.exports = {
  forbidden: [
    rule('no-circular', {}, { circular: true }),
    rule('no-unresolvable', {}, { couldNotResolve: true }),
    rule('no-development-package', { path: '^src/' }, { dependencyTypes: ['npm-dev', 'npm-no-pkg', 'npm-unknown'] }),
    rule('no-orphans', { orphan: true, pathNot: '(index|cli/main|runtime/worker)\\.ts$' }, {}),
    rule('only-runtime-imports-onnxruntime', { pathNot: '^src/runtime/' }, { path: 'onnxruntime-(node|web|common)' }),
    rule(
      'a-stage-never-imports-another',
      { path: '^src/stages/([^/.]+)' },
      { path: '^src/stages/', pathNot: '^src/stages/$1(\\.|/)' },
    ),
    rule(
      'training-is-below-the-stages',
      { path: '^src/training/' },
      { path: '^src/(stages/|evaluation/|pipeline\\.ts|cli/|index\\.ts)' },
    ),
    rule(
      'pipeline-is-above-the-stages',
      { path: '^src/', pathNot: '^src/(cli/|index\\.ts)' },
      { path: '^src/pipeline' },
    ),
    rule('cli-is-the-top', { path: '^src/', pathNot: '^src/cli/' }, { path: '^src/cli/' }),
    ...Object.entries(may).map(([folder, allowed]) =>
      rule(
        `${folder}-imports`,
        { path: `^src/${folder}/` },
        {
          path: '^src/',
          pathNot: `^src/(${[...common, ...[folder, ...allowed].map((name) => `${name}/`)].join('|')})`,
        },
      ),
    ),
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    exclude: { path: '\\.test\\.ts$' },
    tsConfig: { fileName: 'tsconfig.json' },
    tsPreCompilationDeps: true,
    enhancedResolveOptions: { exportsFields: ['exports'], conditionNames: ['import', 'types', 'node'] },
  },
};
