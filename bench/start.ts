import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { UserError } from '../src/errors.js';
import type { Row } from './row.js';
import { spreadOf } from './statistics.js';
import type { Setup } from './work.js';

const COMMAND = fileURLToPath(new URL('../bin/duanzi.js', import.meta.url));

/** At most so many milliseconds are aimed at. */
const TARGETS = { help: 150, load: 3000 } as const;

/**
 * How long the command line takes to be there: `--help`, and a model from the start of the process to its first token,
 * in 4 bits and after a first time that prepares them. Node's own start is part of both.
 *
 * @param setup.model folder of the causal model
 */
export async function startRows(
  { model, threads }: Pick<Setup, 'model' | 'threads'>,
  options: { readonly steps: number; readonly signal: AbortSignal; readonly input: string },
): Promise<Row[]> {
  const first = ['generate', '--model', model, '--input', options.input, '--max-new-tokens', '1', '--json', '--quiet'];
  const load = [...first, '--quantization', 'int4', '--threads', String(threads)];
  return [
    await rowOf('help', 'duanzi --help', ['--help'], options),
    await rowOf('load', `from start to first token, ${model} in 4 bits`, load, options),
  ];
}

async function rowOf(
  work: keyof typeof TARGETS,
  description: string,
  args: readonly string[],
  { steps, signal }: { readonly steps: number; readonly signal: AbortSignal },
): Promise<Row> {
  await millisecondsToOutput(args, signal);
  const times: number[] = [];
  for (let step = 0; step < steps; step++) times.push(await millisecondsToOutput(args, signal));
  const spread = spreadOf(times);
  return {
    work,
    description,
    ours: spread.median,
    unit: 'ms',
    rates: { ms: spread },
    secondsPerStep: spreadOf(times.map((each) => each / 1000)),
    steps,
    target: TARGETS[work],
  };
}

/** Runs the built command; the time until it first writes to stdout. */
async function millisecondsToOutput(args: readonly string[], signal: AbortSignal): Promise<number> {
  const begun = performance.now();
  const child = spawn(process.execPath, [COMMAND, ...args], { stdio: ['ignore', 'pipe', 'pipe'], signal });
  child.on('error', () => undefined);
  let [seen, said] = [undefined as number | undefined, ''];
  child.stdout.on('data', () => (seen ??= performance.now() - begun));
  child.stderr.on('data', (chunk: Buffer) => (said += chunk.toString()));
  await once(child, 'close');
  signal.throwIfAborted();
  if (child.exitCode === 0 && seen !== undefined) return seen;
  throw new UserError({
    code: 'bench.start',
    message: `duanzi ${args[0] ?? ''} failed: ${said.trim().split('\n').slice(-3).join(' | ')}`,
    where: COMMAND,
    fix: 'Build it with npm run build, and give a model that it can read.',
  });
}
