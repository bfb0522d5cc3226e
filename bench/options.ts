import { Command, CommanderError } from 'commander';
import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import { UserError } from '../src/errors.js';
import { entriesOf, GROUPS, type Entry } from './entries.js';
import { PEER_DTYPES } from './peer.js';

/** Names separated by commas. */
const listOf = <const Names extends readonly [string, ...string[]]>(names: Names) =>
  z
    .string()
    .transform((given) => given.split(',').map((name) => name.trim()))
    .pipe(z.array(z.enum(names)));

const schema = z.object({
  model: z.string().optional(),
  rm: z.string().optional(),
  csv: z.string().optional(),
  json: z.string().optional(),
  only: listOf(GROUPS).optional(),
  peer: z.string().optional(),
  peerDtype: listOf(PEER_DTYPES).default([...PEER_DTYPES]),
  peerScript: z.string().default(fileURLToPath(new URL('./peer/bench.py', import.meta.url))),
  steps: z.coerce.number().int().min(1).default(6),
  threads: z.coerce.number().int().min(1).default(availableParallelism()),
  quantization: z.enum(['float32', 'int8', 'int4', 'nf4']).optional(),
  recompute: z.boolean().default(false),
  growth: z.string().optional(),
  quick: z.boolean().default(false),
});

export interface Options extends Omit<z.output<typeof schema>, 'only'> {
  readonly entries: readonly Entry[];
  /** Whether starting is measured: `--help`, and from a start to the first token. */
  readonly start: boolean;
}

/**
 * Reads the command line.
 *
 * @returns undefined when help was asked for, which is printed
 * @throws UserError for an option that does not exist or a value that is none
 */
export function readOptions(argv: readonly string[]): Options | undefined {
  const command = new Command('npm run bench --')
    .description('Measures training and decoding beside the float32 matrix product of this machine.')
    .option('--model <dir>', 'Causal model (default: random, 4 layers of the shape of Qwen3-0.6B).')
    .option('--rm <dir>', 'Reward model (default: random, 3 layers of a DeBERTa-v2 of 97M shape).')
    .option('--csv <file>', 'Rows to take texts from; both models then need a tokenizer (default: random tokens).')
    .option('--json <file>', 'Also write what was found as JSON.')
    .option('--only <names>', `Some of ${GROUPS.join(', ')}, separated by commas (default: all; grpo needs --csv).`)
    .option('--peer <python>', 'A Python with torch, transformers, trl and peft, which takes turns with this project.')
    .option('--peer-dtype <names>', `In which of ${PEER_DTYPES.join(', ')} it computes (default: both).`)
    .option('--peer-script <file>', 'What it runs (default: bench/peer/bench.py).')
    .option('--steps <n>', 'Repetitions that count, after one that does not (default: 6).')
    .option(
      '--quantization <form>',
      'How the base of the policy multiplies in every row: float32, int8, or for generate and grpo int4 (default: each row in its own form).',
    )
    .option('--threads <n>', `Threads of one computation (default: ${availableParallelism()}).`)
    .option('--recompute', 'Compute the blocks of a model again for the gradient (sft, rm): less memory, more time.')
    .option(
      '--growth <dir>',
      'Instead of all that: time and memory over length, group, layers and steps, as growth.json and growth.svg in a folder; what it has is not measured again.',
    )
    .option('--quick', 'Tiny models and batches, to see that everything works.')
    .exitOverride()
    .configureOutput({ outputError: () => undefined });
  try {
    command.parse([...argv], { from: 'user' });
  } catch (error) {
    if (error instanceof CommanderError && error.exitCode === 0) return undefined;
    throw usage(error instanceof Error ? error.message.replace(/^error: /, '') : String(error));
  }
  const parsed = schema.safeParse(command.opts());
  if (!parsed.success) {
    const { path, message } = parsed.error.issues[0]!;
    throw usage(`--${String(path[0])}: ${message}`);
  }
  const { only, ...rest } = parsed.data;
  const names = only ?? GROUPS.filter((name) => name !== 'grpo' || rest.csv !== undefined);
  if (rest.csv !== undefined && (names.some((name) => name !== 'rm') ? rest.model : rest.rm) === undefined) {
    throw usage('--csv needs models with tokenizers');
  }
  const given = [rest.csv, rest.model, rest.rm];
  if ((names.includes('grpo') || rest.peer !== undefined) && given.includes(undefined)) {
    throw usage(`${rest.peer === undefined ? 'grpo' : '--peer'} needs --model, --rm and --csv`);
  }
  if (rest.quantization === 'int4' && names.some((name) => name === 'sft' || name === 'rm')) {
    throw usage('--quantization int4 is for writing: give --only generate,grpo with it');
  }
  const groups = [...new Set(names)];
  return { ...rest, entries: entriesOf(groups, rest), start: groups.includes('start') };
}

const usage = (message: string): UserError =>
  new UserError({
    code: 'bench.usage',
    message: `${message.charAt(0).toUpperCase()}${message.slice(1)}.`,
    where: 'the command line',
    fix: 'See npm run bench -- --help.',
  });
