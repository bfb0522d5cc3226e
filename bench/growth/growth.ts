import { fork } from 'node:child_process';
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import { UserError } from '../../src/errors.js';
import { writeFileAtomic } from '../../src/runs/atomic.js';
import { drawGrowth } from './draw.js';
import { AXES, describeGrowth, valuesOf } from './plan.js';
import type { PointOrder } from './point.js';

const pointSchema = z.object({
  axis: z.enum(AXES),
  value: z.number().int().positive(),
  /** Median of a step; for `steps`, since the point before. */
  seconds: z.number().positive(),
  /** Largest resident memory of the process, Node included; for `steps` what it is at that step. */
  bytes: z.number().positive(),
});
const fileSchema = z.object({ what: z.array(z.string()), points: z.array(pointSchema) });

export type GrowthPoint = z.output<typeof pointSchema>;

/** The data and the picture in a folder. */
export const GROWTH_DATA = 'growth.json';
export const GROWTH_IMAGE = 'growth.svg';

/**
 * Measures time and memory as length, group, layers and steps grow, point by point; what a folder has already is not
 * measured again, so it can be stopped at any time.
 */
export async function growth(
  dir: string,
  settings: {
    readonly threads: number;
    readonly quick: boolean;
    readonly signal: AbortSignal;
    readonly note: (text: string) => void;
  },
): Promise<void> {
  await mkdir(dir, { recursive: true });
  const points = await earlier(join(dir, GROWTH_DATA));
  for (const axis of AXES) {
    const values = valuesOf(axis, settings.quick);
    const missing = values.filter((value) => !points.some((point) => point.axis === axis && point.value === value));
    if (missing.length === 0) continue;
    for (const asked of axis === 'steps' ? [values] : missing.map((value) => [value])) {
      settings.note(`measuring ${axis} ${asked.join(', ')} …`);
      const made = await measured({ axis, values: asked, threads: settings.threads }, settings.signal);
      const kept = points.filter((point) => !made.some(({ value }) => point.axis === axis && point.value === value));
      points.splice(0, Infinity, ...kept, ...made);
      points.sort((a, b) => AXES.indexOf(a.axis) - AXES.indexOf(b.axis) || a.value - b.value);
      await writeFileAtomic(join(dir, GROWTH_DATA), `${JSON.stringify({ what: describeGrowth, points }, null, 2)}\n`);
    }
  }
  await writeFileAtomic(join(dir, GROWTH_IMAGE), await drawGrowth(points));
}

async function earlier(file: string): Promise<GrowthPoint[]> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
  try {
    return fileSchema.parse(JSON.parse(text)).points;
  } catch {
    throw new UserError({
      code: 'bench.growth-file',
      message: 'The file holds no growth curves.',
      where: file,
      fix: 'Give another folder, or move the file away.',
    });
  }
}

async function measured(order: PointOrder, signal: AbortSignal): Promise<GrowthPoint[]> {
  signal.throwIfAborted();
  const child = fork(fileURLToPath(new URL('./point.ts', import.meta.url)), { signal });
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('message', (points) => {
      resolve(z.array(pointSchema).parse(points));
    });
    child.once('exit', (code) => {
      reject(new Error(`the process of a point ended with exit code ${code ?? 'unknown'}`));
    });
    child.send(order);
  });
}
