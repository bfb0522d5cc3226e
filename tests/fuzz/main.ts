/**
 * Gives every reader of files thousands of damaged ones; `npm run test:fuzz -- [--inputs N] [--readers a,b] [--seed N]`.
 * Each reader works in a process of its own, which is ended where it hangs.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { fuzz, type Outcome } from './fuzz.js';
import { installGuard } from './guard.js';
import { makeReaders, type Reader } from './readers.js';

/** Milliseconds without a sign of life after which a reader hangs, on a machine that does other things too. */
const HANGS = 120_000;

const { values } = parseArgs({
  options: {
    inputs: { type: 'string', default: '10000' },
    readers: { type: 'string' },
    seed: { type: 'string', default: '1' },
    only: { type: 'string' },
  },
});
const [count, seed] = [Number(values.inputs), Number(values.seed)];
const folder = await mkdtemp(join(tmpdir(), 'duanzi-fuzz-'));
try {
  const readers = await makeReaders(folder);
  if (values.only !== undefined) await inChild(readers.find(({ name }) => name === values.only)!);
  else process.exitCode = await inParent(readers.map(({ name }) => name));
} finally {
  await rm(folder, { recursive: true, force: true });
}

async function inChild(reader: Reader): Promise<void> {
  installGuard();
  const tick = (input: number): void => {
    if (input % 100 === 0) process.send!({ input });
  };
  const outcome = await fuzz(reader, { count, seed, tick });
  await new Promise((resolve) => process.send!({ outcome }, resolve));
  process.disconnect();
}

async function inParent(names: readonly string[]): Promise<number> {
  const wanted = values.readers?.split(',') ?? names;
  let failed = 0;
  process.stdout.write('| reader | inputs | refused by name | findings |\n|---|---|---|---|\n');
  for (const name of names.filter((each) => wanted.includes(each))) {
    const { outcome, last } = await watch(name);
    failed += outcome?.findings.length ?? 1;
    const row =
      outcome === undefined
        ? `${last} | – | it died or hung`
        : `${outcome.inputs} | ${outcome.refused} | ${outcome.findings.length}`;
    process.stdout.write(`| ${name} | ${row} |\n`);
    for (const { input, file, problem } of outcome?.findings.slice(0, 5) ?? []) {
      process.stderr.write(`${name}, input ${input}, ${file}:\n${problem}\n`);
    }
  }
  return failed === 0 ? 0 : 1;
}

async function watch(name: string): Promise<{ outcome: Outcome | undefined; last: number }> {
  const argv = ['--only', name, '--inputs', String(count), '--seed', String(seed)];
  const child: ChildProcess = fork(fileURLToPath(import.meta.url), argv, {
    execArgv: [...process.execArgv, '--max-old-space-size=512'],
  });
  let [outcome, last]: [Outcome | undefined, number] = [undefined, 0];
  let timer = setTimeout(() => child.kill('SIGKILL'), HANGS);
  child.on('message', (message: { input?: number; outcome?: Outcome }) => {
    clearTimeout(timer);
    timer = setTimeout(() => child.kill('SIGKILL'), HANGS);
    last = message.input ?? last;
    outcome ??= message.outcome;
  });
  await once(child, 'exit');
  clearTimeout(timer);
  return { outcome, last };
}
