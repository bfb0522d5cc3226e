import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, rm, stat } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { isDeepStrictEqual } from 'node:util';
import { build } from 'esbuild';
import { z } from 'zod';
import { readManifest } from '../../src/runs/manifest.js';
import { readScalars } from '../../src/runs/tensorboard/reader.js';
import type { Fault, Write } from './faults.js';
import { mountInMemory, unmount } from './in-memory.js';
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

/** Runs that one process is given. */
const JOBS_AT_ONCE = 12;

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

  /**
   * Tries points one after the other. Starting a process takes longer than a run, so each does one run after the other
   * until it is killed.
   */
  async *try(points: readonly Point[]): AsyncGenerator<Verdict> {
    const open = points.map((point, i) => new Attempt(point, join(this.folder, 'runs', `${point.scenario}-${i}`)));
    for (const { scenario } of points) await this.reference(scenario);
    while (open.length > 0) {
      const turns: { attempt: Attempt; job: Job }[] = [];
      for (const attempt of open) {
        turns.push(...attempt.untilKilled().map((job) => ({ attempt, job })));
        if (turns.length >= JOBS_AT_ONCE || attempt.isToBeKilled) break;
      }
      const { reports, killed, stderr } = await this.#spawn(turns.map(({ job }) => job));
      for (const [i, { attempt, job }] of turns.entries()) {
        if (!open.includes(attempt) || !attempt.isOver(job, reports[i], killed, stderr)) continue;
        open.splice(open.indexOf(attempt), 1);
        yield await this.#judge(attempt);
      }
    }
  }

  /**
   * Runs a scenario on a file system of its own in memory that holds a share of what it needs, then gives that room and
   * lets it go on. Mounting takes the rights of an administrator.
   *
   * @returns what went wrong, if anything did; undefined where the run ended as it should
   */
  async onSmallDisk(scenario: Scenario, share: number): Promise<string | undefined> {
    await this.reference(scenario);
    const needed = await sizeOf(join(this.folder, 'runs', `${scenario}-reference`));
    const disk = join(this.folder, 'runs', `${scenario}-disk`);
    const out = join(disk, 'run');
    await mkdir(disk, { recursive: true });
    await mountInMemory(disk, Math.ceil(share * needed));
    try {
      const full = (await this.#spawn([{ scenario, out, resume: false }])).reports[0]?.failure;
      if (full?.exitCode !== 3 || !full.error.code.endsWith('.disk')) {
        return `the full disk is not told: ${full?.text ?? 'nothing was'}`;
      }
      await mountInMemory(disk, 16 * needed, 'remount');
      const { reports, stderr } = await this.#spawn([{ scenario, out, resume: true }]);
      if (reports[0] === undefined || reports[0].failure !== undefined) return reports[0]?.failure?.text ?? stderr;
      return await this.#difference(scenario, out);
    } finally {
      await unmount(disk);
      await rm(disk, { recursive: true });
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
  #begun = false;

  constructor(
    readonly point: Point,
    readonly out: string,
  ) {
    this.#faults = [...point.faults];
  }

  /** Whether the last of the runs that `untilKilled` gave takes its process with it. */
  get isToBeKilled(): boolean {
    return this.#killedBy;
  }
  #killedBy = false;

  /** The runs that are left, up to one that is to be killed. */
  untilKilled(): Job[] {
    const jobs: Job[] = [];
    for (;;) {
      const fault = this.#faults.shift();
      jobs.push({ scenario: this.point.scenario, out: this.out, resume: this.#begun, fault });
      this.#begun = true;
      this.#killedBy = fault?.kind === 'kill' || fault?.kind === 'torn';
      if (this.#killedBy || fault === undefined) return jobs;
    }
  }

  /** Takes in what a process said of a run before it ended; returns whether the point is done with, well or not. */
  isOver({ fault }: Job, said: Report | undefined, killed: boolean, stderr: string): boolean {
    if (said === undefined) {
      if (fault === undefined || !killed) this.problem = `its process ended without a word: ${stderr}`;
      this.met++;
      return this.problem !== undefined;
    }
    if (fault !== undefined && said.writes.length > fault.at) this.met++;
    if (said.failure === undefined) return fault === undefined;
    const { exitCode, text, error } = said.failure;
    const onDisk = fault?.kind === 'ENOSPC' || fault?.kind === 'EIO';
    if (!onDisk || exitCode !== 3 || !error.code.endsWith('.disk')) this.problem = `it failed: ${text}`;
    return this.problem !== undefined;
  }
}

/** A block of a file system in memory. */
const BLOCK = 4096;

/** Bytes that a folder takes there: whole blocks for each file and folder. */
async function sizeOf(folder: string): Promise<number> {
  const names = await readdir(folder, { recursive: true });
  const sizes = await Promise.all(names.map(async (name) => (await stat(join(folder, name))).size));
  return sizes.reduce((total, size) => total + Math.max(1, Math.ceil(size / BLOCK)) * BLOCK, 0);
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
