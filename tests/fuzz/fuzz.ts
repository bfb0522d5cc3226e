import { readFile, writeFile } from 'node:fs/promises';
import { extname } from 'node:path';
import fc from 'fast-check';
import { UserError } from '../../src/errors.js';
import { stream } from '../../src/random.js';
import { within } from './guard.js';
import { mutate } from './mutate.js';
import type { Reader } from './readers.js';

/** Milliseconds of processor time that the reading of one small file may take. */
const SLOW = 2_000;
/** What may be asked for at once: room for what the file says in fewer bytes, such as 16-bit numbers as 32-bit ones. */
const roomFor = (bytes: number): number => 16 * bytes + (4 << 20);

/** An input that a reader did not take as it should. */
export interface Finding {
  readonly reader: string;
  readonly input: number;
  readonly file: string;
  readonly problem: string;
}

/** How many inputs there were, how many were refused by name and how many taken, and those that went wrong. */
export interface Outcome {
  readonly inputs: number;
  readonly refused: number;
  readonly findings: readonly Finding[];
}

/**
 * Reads damaged files: three in four are real ones with a few changes, the others are made by fast-check from nothing. A
 * reader may take a file or refuse it with a `UserError`; anything else is a finding.
 */
export async function fuzz(
  reader: Reader,
  { from = 0, count, seed, tick }: { from?: number; count: number; seed: number; tick?: (input: number) => void },
): Promise<Outcome> {
  const originals = await Promise.all(reader.files.map((file) => readFile(file)));
  const findings: Finding[] = [];
  let refused = 0;
  await reader.read();
  for (let input = from; input < from + count; input++) {
    tick?.(input);
    const random = stream(seed, 'fuzz', reader.name, input);
    const which = random.integer(reader.files.length);
    const file = reader.files[which]!;
    const other = originals[random.integer(originals.length)]!;
    const bytes = input % 4 === 3 ? invented(file, random.integer(2 ** 31)) : mutate(originals[which]!, other, random);
    await writeFile(file, bytes);
    const outcome = await attempt(reader, Math.max(bytes.length, ...originals.map(({ length }) => length)));
    await writeFile(file, originals[which]!);
    if (outcome === 'refused') refused++;
    else if (outcome !== 'taken') findings.push({ reader: reader.name, input, file, problem: outcome.problem });
  }
  return { inputs: count, refused, findings };
}

async function attempt(reader: Reader, size: number): Promise<'taken' | 'refused' | { problem: string }> {
  const before = process.cpuUsage();
  let result: 'taken' | 'refused' = 'taken';
  try {
    await within(roomFor(size), () => reader.read());
  } catch (error) {
    if (!(error instanceof UserError))
      return { problem: error instanceof Error ? (error.stack ?? error.message) : String(error) };
    if (/\n\s+at /.test(`${error.message}${error.fix ?? ''}`)) return { problem: `a stack trace: ${error.message}` };
    if (error.message.length > 4000) return { problem: `a message of ${error.message.length} characters` };
    result = 'refused';
  }
  const { user, system } = process.cpuUsage(before);
  const milliseconds = (user + system) / 1000;
  return milliseconds > SLOW ? { problem: `it took ${Math.round(milliseconds)} ms` } : result;
}

/** A file from nothing: bytes, a text, or JSON where the reader wants that. */
function invented(file: string, seed: number): Buffer {
  const json = fc
    .oneof(fc.jsonValue(), fc.dictionary(fc.string(), fc.jsonValue()))
    .map((value) => JSON.stringify(value));
  const lines = fc.array(json, { maxLength: 8 }).map((all) => all.join('\n'));
  const text = fc.string({ unit: 'binary', maxLength: 400 });
  const binary = fc.uint8Array({ maxLength: 4096 }).map((bytes) => Buffer.from(bytes));
  const inventions = ['.json', '.jsonl', '.yaml'].includes(extname(file))
    ? fc.oneof(json, lines, text, binary)
    : fc.oneof(text, binary);
  return Buffer.from(fc.sample(inventions, { numRuns: 1, seed })[0] as string);
}
