/**
 * Kills runs at seeded points and lets them go on; `npm run test:crash`. What passed is remembered in the folder, so that a
 * run of this program that was stopped goes on where it was; `--fresh` forgets it.
 */
import { appendFileSync, existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { stream } from '../../src/random.js';
import { CrashHarness, nameOf, type Point } from './harness.js';
import { checkpointPoints, diskPoints, randomPoints } from './points.js';
import { type Scenario, SCENARIOS } from './scenarios.js';

const { values } = parseArgs({
  options: {
    stages: { type: 'string', default: SCENARIOS.join(',') },
    checkpoint: { type: 'string', default: '1000' },
    kills: { type: 'string', default: '45' },
    disk: { type: 'string', default: '1000' },
    small: { type: 'string', default: '8' },
    seed: { type: 'string', default: '1' },
    fresh: { type: 'boolean', default: false },
  },
});
const folder = fileURLToPath(new URL('../../tmp/crash', import.meta.url));
const results = join(folder, `passed-${values.seed}.txt`);
mkdirSync(folder, { recursive: true });
if (values.fresh) rmSync(results, { force: true });
const passed = new Map(
  (existsSync(results) ? readFileSync(results, 'utf8').trim().split('\n') : [])
    .filter((line) => line !== '')
    .map((line) => [line.slice(line.indexOf(' ') + 1), Number(line.slice(0, line.indexOf(' ')))]),
);

const harness = await CrashHarness.create(folder);
const points: Point[] = [];
for (const scenario of SCENARIOS.filter((name) => values.stages.split(',').includes(name))) {
  const writes = await harness.reference(scenario);
  points.push(...checkpointPoints(scenario, writes, Number(values.checkpoint)));
  points.push(...randomPoints(scenario, writes, Number(values.kills), Number(values.seed)));
  points.push(...diskPoints(scenario, writes, Number(values.disk)));
  process.stdout.write(`${scenario}: ${writes.length} writes\n`);
}
const all = new Map(points.map((point) => [nameOf(point), point]));
const names = [...all.keys()];
// Shuffled, so that a run that is stopped early has seen something of everything.
const open = Array.from(stream(Number(values.seed), 'crash order').shuffle(names.length), (i) => names[i]!)
  .filter((name) => !passed.has(name))
  .map((name) => all.get(name)!);
process.stdout.write(`${all.size} points, ${open.length} of them open\n`);

let failed = 0;
for await (const { point, met, problem } of harness.try(open)) {
  const name = nameOf(point);
  if (problem === undefined) {
    passed.set(name, met);
    appendFileSync(results, `${met} ${name}\n`);
  } else {
    failed++;
    process.stdout.write(`FAILED ${name}: ${problem}\n`);
  }
}

for (const scenario of SCENARIOS.filter((name) => values.stages.split(',').includes(name))) {
  for (let i = 1; i <= Number(values.small); i++) {
    const name = `${scenario} small@${i}/${Number(values.small) + 1}`;
    if (passed.has(name)) continue;
    const problem = await harness.onSmallDisk(scenario, i / (Number(values.small) + 1));
    if (problem === undefined) {
      passed.set(name, 1);
      appendFileSync(results, `1 ${name}\n`);
    } else {
      failed++;
      process.stdout.write(`FAILED ${name}: ${problem}\n`);
    }
  }
}

const figures = (scenario: Scenario): string => {
  const own = [...all].filter(([, point]) => point.scenario === scenario);
  const count = (kinds: readonly string[]): number =>
    own.reduce((sum, [name, { faults }]) => sum + (kinds.includes(faults[0]!.kind) ? (passed.get(name) ?? 0) : 0), 0);
  const small = [...passed.keys()].filter((name) => name.startsWith(`${scenario} small@`)).length;
  return `| ${scenario} | ${count(['kill', 'torn'])} | ${count(['ENOSPC'])} | ${count(['EIO'])} | ${small} |`;
};
process.stdout.write(
  `| stage | kills | full disk | failing disk | small disk |\n|---|---|---|---|---|\n${SCENARIOS.map(figures).join('\n')}\n`,
);
process.stdout.write(`${failed} failed\n`);
process.exit(failed === 0 ? 0 : 1);
