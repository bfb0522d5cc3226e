import { pastName, presentName } from '../models/causal.js';
import type { DeviceTensor, Runtime } from '../runtime/runtime.js';

export interface CacheShape {
  readonly numHiddenLayers: number;
  readonly numKeyValueHeads: number;
  readonly headDim: number;
}

/** A row of a cache that is copied to another row: its first `length` positions. */
export interface RowCopy {
  readonly from: number;
  readonly to: number;
  readonly length: number;
}

/** Keys and values of every layer, (rows, kvHeads, capacity, headDim), where the runtime extends them in place. */
export class KeyValueCache {
  private constructor(
    private readonly runtime: Runtime,
    private readonly shape: CacheShape,
    private readonly tensors: readonly { readonly past: string; readonly present: string; tensor: DeviceTensor }[],
    readonly capacity: number,
  ) {}

  static async allocate(runtime: Runtime, shape: CacheShape, rows: number, capacity: number): Promise<KeyValueCache> {
    const tensors = [];
    for (let layer = 0; layer < shape.numHiddenLayers; layer++) {
      for (const which of ['key', 'value'] as const) {
        const size = [rows, shape.numKeyValueHeads, capacity, shape.headDim];
        const tensor = await runtime.allocate('float32', size);
        tensors.push({ past: pastName(layer, which), present: presentName(layer, which), tensor });
      }
    }
    return new KeyValueCache(runtime, shape, tensors, capacity);
  }

  /** The first rows as feeds, and as the targets that the extended rows are written to: the same memory. */
  firstRows(count: number): { past: Record<string, DeviceTensor>; present: Record<string, DeviceTensor> } {
    const views = this.tensors.map(({ past, present, tensor }) => ({ past, present, view: tensor.rows(count) }));
    return {
      past: Object.fromEntries(views.map(({ past, view }) => [past, view])),
      present: Object.fromEntries(views.map(({ present, view }) => [present, view])),
    };
  }

  /** Copies rows into a cache of the same model, which may be this one. */
  async copyRows(to: KeyValueCache, rows: readonly RowCopy[]): Promise<void> {
    const { numKeyValueHeads: heads, headDim } = this.shape;
    const blocks = rows.flatMap((row) =>
      Array.from({ length: heads }, (_, head) => ({
        from: (row.from * heads + head) * this.capacity * headDim,
        to: (row.to * heads + head) * to.capacity * headDim,
        length: row.length * headDim,
      })),
    );
    const pairs = this.tensors.map(({ tensor }, i) => [tensor, to.tensors[i]!.tensor] as const);
    await this.runtime.copy(pairs, blocks);
  }

  async dispose(): Promise<void> {
    for (const { tensor } of this.tensors) await tensor.dispose();
  }
}
