/**
 * Gives every reader of files thousands of damaged ones; `npm run test:fuzz -- [--inputs N] [--readers a,b] [--seed N]`.
 * Each reader works in a process of its own, which is ended where it hangs. The readers take turns, and what was seen is
 * remembered, so that a run of this program that was stopped goes on where it was; `--fresh` forgets it.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { z } from 'zod';
import { fuzz, type Outcome } from './fuzz.js';
import { installGuard } from './guard.js';
import { makeReaders, type Reader } from './readers.js';

/** Milliseconds without a sign of life after which a reader hangs, on a machine that does other things too. */
const HANGS = 120_000;
/** Inputs that a process tries before the next reader has its turn. */
const PIECE = 2_500;

/** What was seen of a reader so far. */
const seenSchema = z.record(z.string(), z.object({ inputs: z.int(), refused: z.int(), findings: z.int() }));

const { values } = parseArgs({
  options: {
    inputs: { type: 'string', default: '10000' },
    readers: { type: 'string' },
    seed: { type: 'string', default: '1' },
    fresh: { type: 'boolean', default: false },
    only: { type: 'string' },
    from: { type: 'string', default: '0' },
  },
});
const [count, seed] = [Number(values.inputs), Number(values.seed)];
const remembered = fileURLToPath(new URL(`../../tmp/fuzz/seen-${seed}.json`, import.meta.url));
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
  const outcome = await fuzz(reader, { from: Number(values.from), count, seed, tick });
  await new Promise((resolve) => process.send!({ outcome }, resolve));
  process.disconnect();
}

async function inParent(names: readonly string[]): Promise<number> {
  const wanted = names.filter((name) => values.readers?.split(',').includes(name) ?? true);
  mkdirSync(dirname(remembered), { recursive: true });
  const before = values.fresh ? '{}' : await readFile(remembered, 'utf8').catch(() => '{}');
  const seen = seenSchema.parse(JSON.parse(before));
  const next = (name: string): number => seen[name]?.inputs ?? 0;
  for (let from = 0; from < count; from += PIECE) {
    for (const name of wanted.filter((each) => next(each) === from)) {
      const piece = await watch(name, from, Math.min(PIECE, count - from));
      const { refused, findings } = seen[name] ?? { refused: 0, findings: 0 };
      seen[name] = {
        inputs: from + Math.min(PIECE, count - from),
        refused: refused + (piece.outcome?.refused ?? 0),
        findings: findings + (piece.outcome?.findings.length ?? 1),
      };
      await writeFile(remembered, JSON.stringify(seen));
      if (piece.outcome === undefined) process.stderr.write(`${name}, about input ${piece.last}: it died or hung\n`);
      for (const { input, file, problem } of piece.outcome?.findings.slice(0, 5) ?? []) {
        process.stderr.write(`${name}, input ${input}, ${file}:\n${problem}\n`);
      }
    }
  }
  process.stdout.write('| reader | inputs | refused by name | findings |\n|---|---|---|---|\n');
  for (const name of wanted) {
    const { inputs, refused, findings } = seen[name]!;
    process.stdout.write(`| ${name} | ${inputs} | ${refused} | ${findings} |\n`);
  }
  return wanted.every((name) => seen[name]!.findings === 0) ? 0 : 1;
}

async function watch(
  name: string,
  from: number,
  inputs: number,
): Promise<{ outcome: Outcome | undefined; last: number }> {
  const argv = ['--only', name, '--from', String(from), '--inputs', String(inputs), '--seed', String(seed)];
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
