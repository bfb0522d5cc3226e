import { Pacer } from './pacer.js';

/** Writes the gradient at `x` into `gradient` and returns the value there. */
export type Objective = (x: Float64Array, gradient: Float64Array) => number;

export interface Minimum {
  x: Float64Array;
  value: number;
  /** Largest absolute component of the gradient at `x`. */
  gradientMax: number;
  iterations: number;
  /** Whether `gradientMax` reached the tolerance. */
  converged: boolean;
}

export interface MinimiseOptions {
  /** Stop when no component of the gradient is larger; default 1e-6. */
  tolerance?: number;
  maxIterations?: number;
  /** Pairs of steps and gradient changes kept; default 10. */
  memory?: number;
  signal?: AbortSignal | undefined;
}

/** A step and the change of the gradient along it. */
interface Pair {
  step: Float64Array;
  change: Float64Array;
  /** 1 / (step · change) */
  rho: number;
}

/**
 * Minimum of a smooth convex function by L-BFGS (Nocedal 1980; two-loop recursion) with a bisecting line search for
 * the weak Wolfe conditions. Deterministic.
 */
export async function minimise(
  objective: Objective,
  start: Float64Array,
  { tolerance = 1e-6, maxIterations = 1000, memory = 10, signal }: MinimiseOptions = {},
): Promise<Minimum> {
  const pacer = new Pacer(signal);
  let x: Float64Array = start.slice();
  let gradient: Float64Array = new Float64Array(x.length);
  let value = objective(x, gradient);
  const pairs: Pair[] = [];
  let iterations = 0;
  for (; iterations < maxIterations && maxAbs(gradient) > tolerance; iterations += 1) {
    await pacer.breathe();
    const direction = descent(gradient, pairs);
    const found = await lineSearch(objective, x, value, gradient, direction, pairs.length === 0, pacer);
    // No lower point along a descent direction: x is the minimum as far as rounding can tell.
    if (found === undefined) break;
    const step = combine(found.x, -1, x);
    const change = combine(found.gradient, -1, gradient);
    const curvature = dot(step, change);
    if (curvature > 0) {
      pairs.push({ step, change, rho: 1 / curvature });
      if (pairs.length > memory) pairs.shift();
    }
    ({ x, value, gradient } = found);
  }
  const gradientMax = maxAbs(gradient);
  return { x, value, gradientMax, iterations, converged: gradientMax <= tolerance };
}

/** −H · gradient, with H the inverse Hessian that the kept pairs imply. */
function descent(gradient: Float64Array, pairs: readonly Pair[]): Float64Array {
  const direction = gradient.map((component) => -component);
  const factors = new Float64Array(pairs.length);
  for (let i = pairs.length - 1; i >= 0; i -= 1) {
    const { step, change, rho } = pairs[i]!;
    factors[i] = rho * dot(step, direction);
    addScaled(direction, -factors[i]!, change);
  }
  const latest = pairs.at(-1);
  if (latest !== undefined) {
    const scale = 1 / (latest.rho * dot(latest.change, latest.change));
    for (let i = 0; i < direction.length; i += 1) direction[i]! *= scale;
  }
  pairs.forEach(({ step, change, rho }, i) => {
    addScaled(direction, factors[i]! - rho * dot(change, direction), step);
  });
  return direction;
}

async function lineSearch(
  objective: Objective,
  x: Float64Array,
  value: number,
  gradient: Float64Array,
  direction: Float64Array,
  first: boolean,
  pacer: Pacer,
): Promise<{ x: Float64Array; value: number; gradient: Float64Array } | undefined> {
  const slope = dot(gradient, direction);
  let low = 0;
  let high = Infinity;
  let length = first ? Math.min(1, 1 / Math.sqrt(dot(gradient, gradient))) : 1;
  for (let attempt = 0; attempt < 60; attempt += 1) {
    await pacer.breathe();
    const candidate = combine(x, length, direction);
    const candidateGradient = new Float64Array(x.length);
    const candidateValue = objective(candidate, candidateGradient);
    if (!(candidateValue <= value + 1e-4 * length * slope)) high = length;
    else if (dot(candidateGradient, direction) < 0.9 * slope) low = length;
    else return { x: candidate, value: candidateValue, gradient: candidateGradient };
    length = high === Infinity ? 2 * low : (low + high) / 2;
  }
  return undefined;
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i += 1) sum += a[i]! * b[i]!;
  return sum;
}

/** target += factor · other */
function addScaled(target: Float64Array, factor: number, other: Float64Array): void {
  for (let i = 0; i < target.length; i += 1) target[i]! += factor * other[i]!;
}

/** a + factor · b */
function combine(a: Float64Array, factor: number, b: Float64Array): Float64Array {
  const sum = a.slice();
  addScaled(sum, factor, b);
  return sum;
}

function maxAbs(a: Float64Array): number {
  let max = 0;
  for (let i = 0; i < a.length; i += 1) max = Math.max(max, Math.abs(a[i]!));
  return max;
}
