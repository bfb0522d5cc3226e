import { freshName, pastName } from '../models/causal.js';
import type { CopiedBlock, DeviceTensor, Runtime } from '../runtime/runtime.js';

export interface CacheShape {
  readonly numHiddenLayers: number;
  readonly numKeyValueHeads: number;
  readonly headDim: number;
}

/** A row of a cache that is copied to a row of another: its first `length` positions, to where `at` says. */
export interface RowCopy {
  readonly from: number;
  readonly to: number;
  readonly length: number;
  /** Position of the target that the first one goes to; 0 if not given. */
  readonly at?: number;
}

interface CachedTensor {
  readonly past: string;
  readonly fresh: string;
  tensor: DeviceTensor;
}

/** Keys and values of every layer, (rows, kvHeads, capacity, headDim). */
export class KeyValueCache {
  private constructor(
    private readonly runtime: Runtime,
    private readonly shape: CacheShape,
    private readonly rows: number,
    private readonly tensors: readonly CachedTensor[],
    private positions: number,
  ) {}

  static async allocate(runtime: Runtime, shape: CacheShape, rows: number, capacity: number): Promise<KeyValueCache> {
    const tensors: CachedTensor[] = [];
    for (let layer = 0; layer < shape.numHiddenLayers; layer++) {
      for (const which of ['key', 'value'] as const) {
        const tensor = await runtime.allocate('float32', sizeOf(shape, rows, capacity));
        tensors.push({ past: pastName(layer, which), fresh: freshName(layer, which), tensor });
      }
    }
    return new KeyValueCache(runtime, shape, rows, tensors, capacity);
  }

  /** Positions that each row has room for. */
  get capacity(): number {
    return this.positions;
  }

  /** The first rows as what a run reads. */
  past(rows: number): Record<string, DeviceTensor> {
    return Object.fromEntries(this.tensors.map(({ past, tensor }) => [past, tensor.rows(rows)]));
  }

  /** The first rows as what a run writes its new keys and values to: as many positions as there are. */
  fresh(rows: number): Record<string, DeviceTensor> {
    return Object.fromEntries(this.tensors.map(({ fresh, tensor }) => [fresh, tensor.rows(rows)]));
  }

  /** Copies rows into a cache of the same model, which may be this one. */
  async copyRows(to: KeyValueCache, rows: readonly RowCopy[]): Promise<void> {
    const pairs = this.tensors.map(({ tensor }, i) => [tensor, to.tensors[i]!.tensor] as const);
    await this.runtime.copy(pairs, this.#blocks(rows, to.positions));
  }

  /** Makes room for more positions in each row; the first ones of the given rows stay. */
  async grow(capacity: number, lengths: readonly number[]): Promise<void> {
    const blocks = this.#blocks(
      lengths.map((length, row) => ({ from: row, to: row, length })),
      capacity,
    );
    for (const each of this.tensors) {
      const larger = await this.runtime.allocate('float32', sizeOf(this.shape, this.rows, capacity));
      await this.runtime.copy([[each.tensor, larger]], blocks);
      await each.tensor.dispose();
      each.tensor = larger;
    }
    this.positions = capacity;
  }

  async dispose(): Promise<void> {
    for (const { tensor } of this.tensors) await tensor.dispose();
  }

  /** Where the rows lie here and in a cache of another capacity. */
  #blocks(rows: readonly RowCopy[], capacity: number): CopiedBlock[] {
    const { numKeyValueHeads: heads, headDim } = this.shape;
    return rows.flatMap(({ from, to, length, at = 0 }) =>
      Array.from({ length: heads }, (_, head) => ({
        from: (from * heads + head) * this.positions * headDim,
        to: ((to * heads + head) * capacity + at) * headDim,
        length: length * headDim,
      })),
    );
  }
}

const sizeOf = ({ numKeyValueHeads, headDim }: CacheShape, rows: number, capacity: number): number[] => [
  rows,
  numKeyValueHeads,
  capacity,
  headDim,
];
