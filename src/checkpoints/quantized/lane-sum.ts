/** Numbers added at once, side by side. */
const lanes = 8;
/** Rows of lanes that are summed apart, so that additions do not wait for each other. */
const rows = 4;
const levels = 4;

/**
 * The sum of float32 values in float32, in the order of PyTorch's CPU kernel on one thread (`SumKernel.cpp`): eight
 * lanes of four rows, each by cascade summation (https://doi.org/10.1137/0914050). PyTorch itself splits what is longer
 * than 32,768 between its threads, and then adds in an order that depends on their number.
 */
export function laneSum(values: Float32Array): number {
  const f = Math.fround;
  const stripes = Math.floor(values.length / lanes);
  const full = Math.floor(stripes / rows);
  let sum = 0;
  for (let i = stripes * lanes; i < values.length; i++) sum = f(sum + values[i]!);
  for (let lane = 0; lane < lanes; lane++) {
    const row = (k: number): number => cascade(values, k * lanes + lane, full, rows * lanes);
    let partial = row(0);
    for (let stripe = full * rows; stripe < stripes; stripe++) partial = f(partial + values[stripe * lanes + lane]!);
    for (let k = 1; k < rows; k++) partial = f(partial + row(k));
    sum = f(sum + partial);
  }
  return sum;
}

/** Sums `count` values from `start` on, `stride` apart: short runs first, then their sums, level by level. */
function cascade(values: Float32Array, start: number, count: number, stride: number): number {
  const power = Math.max(4, Math.floor(Math.ceil(Math.log2(Math.max(1, count))) / levels));
  const sums = new Float32Array(levels);
  let done = 0;
  for (; done + 2 ** power <= count;) {
    for (const end = done + 2 ** power; done < end; done++) sums[0]! += values[start + done * stride]!;
    for (let level = 1; level < levels; level++) {
      sums[level]! += sums[level - 1]!;
      sums[level - 1] = 0;
      if (done % 2 ** (power * (level + 1)) !== 0) break;
    }
  }
  for (; done < count; done++) sums[0]! += values[start + done * stride]!;
  return sums.reduce((total, sum) => Math.fround(total + sum));
}
