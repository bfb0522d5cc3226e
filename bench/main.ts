/** `npm run bench`: how fast this machine trains and decodes with this project, beside its own matrix product. */
import { mkdtemp, open, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { explainFileError } from '../src/checkpoints/files.js';
import { failureOf } from '../src/cli/report-error.js';
import { Contestant, WorkFailed } from './contestant.js';
import { growth } from './growth/growth.js';
import { describeMachine } from './machine.js';
import { readOptions, type Options } from './options.js';
import type { Entry } from './entries.js';
import { race } from './race.js';
import type { Row } from './row.js';
import { startRows } from './start.js';
import { writeRandomDeberta, writeRandomQwen3 } from './random-models.js';
import { formatFindings, type Findings } from './report.js';
import { spreadOf } from './statistics.js';
import type { Setup } from './work.js';

async function bench(options: Options, signal: AbortSignal): Promise<Findings> {
  const machine = describeMachine();
  const scratch = await mkdtemp(join(tmpdir(), 'duanzi-bench-'));
  try {
    const setup = await prepare(options, scratch);
    const { peerDtype: dtypes, peerScript, steps } = options;
    const peer = options.peer === undefined ? undefined : { python: options.peer, script: resolve(peerScript), dtypes };
    const ceiling = await Contestant.start('ceiling', setup, signal);
    try {
      await ceiling.measure();
      const rows: Row[] = [];
      const ceilings = [(await ceiling.measure()).gflops];
      for (const [work, entries] of byWork(options.entries)) {
        note(`measuring ${work} …`);
        const result = await race(entries, setup, { ceiling, steps, signal, peer });
        rows.push(...result.rows);
        ceilings.push(...result.ceilings);
      }
      if (options.start) {
        note('measuring how it starts …');
        const input = join(scratch, 'first.jsonl');
        await writeFile(input, `${JSON.stringify({ input_ids: [1, 2, 3] })}\n`);
        rows.push(...(await startRows(setup, { steps, signal, input })));
      }
      const ceilingSpread = spreadOf(ceilings);
      return { machine, threads: setup.threads, ceiling: ceilingSpread.median, ceilingSpread, rows };
    } finally {
      await ceiling.end();
    }
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

function byWork(entries: readonly Entry[]): Map<string, Entry[]> {
  const works = new Map<string, Entry[]>();
  for (const entry of entries) works.set(entry.work, [...(works.get(entry.work) ?? []), entry]);
  return works;
}

/** Makes the models that were not given and that the works need. */
async function prepare(
  { model, rm: reward, csv, threads, recompute, quick, entries, start }: Options,
  scratch: string,
): Promise<Setup> {
  const judged = entries.some(({ work }) => work === 'rm');
  const writes = start || entries.some(({ work }) => work !== 'rm');
  const setup = {
    threads,
    quantization: 'float32' as const,
    recompute,
    quick,
    scratch,
    csv: csv === undefined ? undefined : resolve(csv),
    model: resolve(model ?? join(scratch, 'qwen3')),
    rm: resolve(reward ?? join(scratch, 'deberta')),
  };
  if (model === undefined && writes) {
    note('writing a random Qwen3 …');
    await writeRandomQwen3(setup.model, quick);
  }
  if (reward === undefined && judged) {
    note('writing a random DeBERTa-v2 …');
    await writeRandomDeberta(setup.rm, quick);
  }
  return setup;
}

/** Better now than after minutes of measuring. */
async function requireWritable(file: string): Promise<void> {
  try {
    await (await open(file, 'a')).close();
  } catch (error) {
    throw explainFileError(error, file, 'write');
  }
}

function note(text: string): void {
  process.stderr.write(`${text}\n`);
}

const interruption = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => {
    interruption.abort();
  });
}
try {
  const options = readOptions(process.argv.slice(2));
  if (options?.growth !== undefined) {
    await growth(options.growth, { ...options, signal: interruption.signal, note });
  } else if (options !== undefined) {
    if (options.json !== undefined) await requireWritable(options.json);
    const findings = await bench(options, interruption.signal);
    if (options.json !== undefined) await writeFile(options.json, `${JSON.stringify(findings, null, 2)}\n`);
    process.stdout.write(`${formatFindings(findings)}\n`);
  }
} catch (error) {
  const failure = error instanceof WorkFailed ? error.failure : failureOf(error, interruption.signal);
  note(failure.text);
  process.exitCode = failure.exitCode;
}
