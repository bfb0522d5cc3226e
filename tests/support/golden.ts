import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { readHeader, readTensor } from '../../src/checkpoints/safetensors.js';
import { wrap, type Tensor } from '../../src/graph/tensor.js';

/** The folder of recorded values: tests/fixtures/golden/… */
export const golden = (path: string): string => fileURLToPath(new URL(`../fixtures/golden/${path}`, import.meta.url));

export const goldenJson = (path: string): unknown => JSON.parse(readFileSync(golden(path), 'utf8'));

/** All tensors of a recorded file; int64 becomes int32, which holds every recorded id. */
export async function goldenTensors(path: string): Promise<Map<string, Tensor<'float32' | 'int32'>>> {
  const { tensors } = await readHeader(golden(path));
  const all = new Map<string, Tensor<'float32' | 'int32'>>();
  for (const info of tensors.values()) {
    const data = await readTensor(info);
    if (data instanceof Float32Array) all.set(info.name, wrap('float32', info.shape, data));
    else if (data instanceof BigInt64Array)
      all.set(info.name, wrap('int32', info.shape, Int32Array.from(data, Number)));
    else throw new Error(`${path}: ${info.name} is stored as ${info.dtype}`);
  }
  return all;
}

/** One of `goldenTensors`, which must be there. */
export function take<T>(tensors: ReadonlyMap<string, T>, name: string): T {
  const found = tensors.get(name);
  if (found === undefined) throw new Error(`the recording has no '${name}', only ${[...tensors.keys()].join(', ')}`);
  return found;
}

/** Largest excess of |a − b| over atol + rtol·|b|; NaN counts as infinite. At most 0 when all are close. */
export function excess(
  a: ArrayLike<number>,
  b: ArrayLike<number>,
  { atol = 0, rtol = 0 }: { atol?: number; rtol?: number },
): number {
  if (a.length !== b.length) return Infinity;
  let worst = -Infinity;
  for (let i = 0; i < a.length; i++) {
    const over = Math.abs(a[i]! - b[i]!) - atol - rtol * Math.abs(b[i]!);
    worst = Math.max(worst, Number.isNaN(over) ? Infinity : over);
  }
  return worst;
}
