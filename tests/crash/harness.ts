import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, rm } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { isDeepStrictEqual } from 'node:util';
import { build } from 'esbuild';
import { z } from 'zod';
import { readManifest } from '../../src/runs/manifest.js';
import { readScalars } from '../../src/runs/tensorboard/reader.js';
import type { Fault, Write } from './faults.js';
import { type Scenario, writeInputs } from './scenarios.js';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));

/** A place at which a run is disturbed; the run that goes on from there may be disturbed again. */
export interface Point {
  readonly scenario: Scenario;
  readonly faults: readonly Fault[];
}

export const nameOf = ({ scenario, faults }: Point): string =>
  `${scenario} ${faults.map(({ kind, at }) => `${kind}@${at}`).join(' ')}`;

/** What came of a point: it was met and the run ended as if it had not been, or a sentence about what went wrong. */
export interface Verdict {
  readonly point: Point;
  /** How many of its faults were met; a run that ends before one never meets it. */
  readonly met: number;
  readonly problem?: string;
}

const report = z.object({
  out: z.string(),
  writes: z.array(z.object({ call: z.string(), path: z.string() })),
  failure: z.object({ exitCode: z.number(), text: z.string(), error: z.object({ code: z.string() }) }).optional(),
});
type Report = z.infer<typeof report>;

interface Job {
  readonly scenario: Scenario;
  readonly out: string;
  readonly resume: boolean;
  readonly fault?: Fault | undefined;
}

/** Kills runs, lets them go on, and compares what they leave with what an undisturbed run left. */
export class CrashHarness {
  readonly #references = new Map<Scenario, { writes: Write[]; content: Map<string, unknown> }>();

  private constructor(
    private readonly folder: string,
    private readonly child: string,
  ) {}

  /** Makes inputs and the compiled child in `folder`, which must lie in the repository for its packages to be found. */
  static async create(folder: string): Promise<CrashHarness> {
    await rm(join(folder, 'runs'), { recursive: true, force: true });
    await mkdir(join(folder, 'runs'), { recursive: true });
    const compiled = join(folder, 'compiled');
    await compile(compiled);
    await writeInputs(join(folder, 'inputs'));
    return new CrashHarness(folder, join(compiled, 'tests', 'crash', 'child.js'));
  }

  /** Runs a scenario undisturbed; returns its writes. */
  async reference(scenario: Scenario): Promise<readonly Write[]> {
    const known = this.#references.get(scenario);
    if (known !== undefined) return known.writes;
    const out = join(this.folder, 'runs', `${scenario}-reference`);
    const { reports, stderr } = await this.#spawn([{ scenario, out, resume: false }]);
    const whole = reports[0];
    if (whole === undefined || whole.failure !== undefined) {
      throw new Error(`The undisturbed run of ${scenario} failed: ${whole?.failure?.text ?? stderr}`);
    }
    this.#references.set(scenario, { writes: whole.writes, content: await contentOf(out) });
    return whole.writes;
  }

  /** Tries points one after the other. A process ends the run of one point and begins that of the next. */
  async *try(points: readonly Point[]): AsyncGenerator<Verdict> {
    const waiting = points.map((point, i) => new Attempt(point, join(this.folder, 'runs', `${point.scenario}-${i}`)));
    for (const { scenario } of points) await this.reference(scenario);
    for (let current = waiting.shift(); current !== undefined; current ??= waiting.shift()) {
      const attempts = [current];
      if (current.isLast) attempts.push(...waiting.splice(0, 1));
      const { reports, killed, stderr } = await this.#spawn(attempts.map((attempt) => attempt.next()));
      current = undefined;
      for (const [i, attempt] of attempts.entries()) {
        if (attempt.isOver(reports[i], killed, stderr)) yield await this.#judge(attempt);
        else current = attempt;
      }
    }
  }

  async #judge({ point, out, met, problem }: Attempt): Promise<Verdict> {
    const verdict = { point, met };
    const reason = problem ?? (await this.#difference(point.scenario, out));
    if (reason !== undefined) return { ...verdict, problem: `${reason} (see ${out})` };
    await rm(out, { recursive: true, force: true });
    return verdict;
  }

  async #difference(scenario: Scenario, out: string): Promise<string | undefined> {
    const expected = this.#references.get(scenario)!.content;
    const found = await contentOf(out);
    for (const name of new Set([...expected.keys(), ...found.keys()])) {
      if (!found.has(name)) return `${name} is missing`;
      if (!expected.has(name)) return `${name} should not be there`;
      if (!isDeepStrictEqual(found.get(name), expected.get(name))) return `${name} differs`;
    }
    return undefined;
  }

  async #spawn(jobs: readonly Job[]): Promise<{ reports: Report[]; killed: boolean; stderr: string }> {
    const order = JSON.stringify({ inputs: join(this.folder, 'inputs'), root: join(this.folder, 'runs'), jobs });
    const child = spawn(process.execPath, [this.child, order], { stdio: ['ignore', 'pipe', 'pipe'] });
    let [stdout, stderr] = ['', ''];
    child.stdout.setEncoding('utf8').on('data', (piece: string) => (stdout += piece));
    child.stderr.setEncoding('utf8').on('data', (piece: string) => (stderr += piece));
    const [code, signal] = (await once(child, 'close')) as [number | null, string | null];
    if (signal !== 'SIGKILL' && code !== 0)
      throw new Error(`The child ended with ${String(code ?? signal)}: ${stderr}`);
    const lines = stdout.split('\n').filter((line) => line !== '');
    return { reports: lines.map((line) => report.parse(JSON.parse(line))), killed: signal === 'SIGKILL', stderr };
  }
}

/** Lets a run of a point go on until it has ended. */
class Attempt {
  met = 0;
  problem: string | undefined;
  readonly #faults: Fault[];
  #fault: Fault | undefined;
  #begun = false;

  constructor(
    readonly point: Point,
    readonly out: string,
  ) {
    this.#faults = [...point.faults];
  }

  /** Whether nothing will disturb the next process. */
  get isLast(): boolean {
    return this.#faults.length === 0;
  }

  next(): Job {
    this.#fault = this.#faults.shift();
    const job = { scenario: this.point.scenario, out: this.out, resume: this.#begun, fault: this.#fault };
    this.#begun = true;
    return job;
  }

  /** Takes in what a process said of the job before it ended; returns whether the run has ended, well or not. */
  isOver(said: Report | undefined, killed: boolean, stderr: string): boolean {
    const fault = this.#fault;
    if (said === undefined) {
      if (fault === undefined || !killed) this.problem = `its process ended without a word: ${stderr}`;
      this.met++;
      return this.problem !== undefined;
    }
    if (fault !== undefined && said.writes.length > fault.at) this.met++;
    if (said.failure === undefined) return true;
    const { exitCode, text, error } = said.failure;
    const onDisk = fault?.kind === 'ENOSPC' || fault?.kind === 'EIO';
    if (!onDisk || exitCode !== 3 || !error.code.endsWith('.disk')) this.problem = `it failed: ${text}`;
    return this.problem !== undefined;
  }
}

/** Compiles the sources as they are, file by file, which takes no time; starting them then takes no compiler. */
async function compile(folder: string): Promise<void> {
  const sources = (await readdir(join(ROOT, 'src'), { recursive: true })).map((name) => join('src', name));
  const support = (await readdir(join(ROOT, 'tests', 'support'))).map((name) => join('tests', 'support', name));
  const crash = (await readdir(join(ROOT, 'tests', 'crash'))).map((name) => join('tests', 'crash', name));
  const entries = [...sources, ...support, ...crash].filter((name) => name.endsWith('.ts') && !name.includes('.test.'));
  await rm(folder, { recursive: true, force: true });
  await build({
    entryPoints: entries.map((name) => join(ROOT, name)),
    outdir: folder,
    outbase: ROOT,
    format: 'esm',
    platform: 'node',
    target: 'node20',
    logLevel: 'error',
  });
}

/** What differs between two runs of the same: when they ran, and how their report says so. */
const DATED = /(^|\/)(manifest\.json|report\.(md|html))$/;

/**
 * Everything that a run left, by name: files byte for byte, but for their own folder's path; of TensorBoard's files the
 * curves; of the manifest that the run is finished.
 */
async function contentOf(out: string): Promise<Map<string, unknown>> {
  const content = new Map<string, unknown>();
  for (const entry of await readdir(out, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    const name = relative(out, path);
    if (entry.isDirectory()) {
      if (entry.name === 'tensorboard') content.set(name, curvesOf(path));
      else content.set(name, 'a folder');
    } else if (name.endsWith('manifest.json')) {
      content.set(name, (await readManifest(join(path, '..')))?.finishedAt !== null);
    } else if (!DATED.test(name) && !name.includes('tfevents')) {
      content.set(name, (await readFile(path)).toString('latin1').replaceAll(out, 'OUT'));
    } else if (!name.includes('tfevents')) {
      content.set(name, existsSync(path));
    }
  }
  return content;
}

function curvesOf(folder: string): unknown {
  const curves = Array.from(readScalars(folder), ([tag, points]) => [
    tag,
    points.map(({ step, value }) => [step, value]),
  ]);
  return curves.sort(([a], [b]) => (String(a) < String(b) ? -1 : 1));
}
