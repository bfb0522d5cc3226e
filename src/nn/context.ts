import { mulDims, type Dim } from '../graph/dim.js';
import type { Graph, Value } from '../graph/graph.js';
import type { DType } from '../graph/tensor.js';
import {
  add,
  concat,
  dropoutMask,
  flattenRows,
  gatherRows,
  bytesMatmul,
  int4Matmul,
  int8Matmul,
  matmul,
  mul,
  nf4Matmul,
  roundedMatmul,
  streamedMatmul,
  type BytesMatrix,
  type Int4Matrix,
  type Int8Matrix,
  type Nf4Matrix,
} from '../ops/build.js';
import { NF4_BLOCK, NF4_VALUES } from '../ops/nf4.js';

/** Low-rank adapters on linear layers (Hu et al., 2021, https://arxiv.org/abs/2106.09685). */
export interface LoraSettings {
  readonly r: number;
  readonly alpha: number;
  /** Rate on the adapter's input; applied in training graphs only. */
  readonly dropout: number;
  /** Last parts of the names of the modules to adapt, for example `q_proj`. */
  readonly targetModules: readonly string[];
  /** alpha/√r instead of alpha/r. */
  readonly rankStabilized?: boolean;
  /** Parts of the names of modules that learn whole, for example `classifier`: nothing in them is adapted. */
  readonly modulesToSave?: readonly string[];
}

export const loraScale = ({ r, alpha, rankStabilized }: LoraSettings): number =>
  rankStabilized === true ? alpha / Math.sqrt(r) : alpha / r;

/** Whether LoRA adapts a module: its name ends with a target, and it is part of none that learns whole. */
export const isTarget = (
  { targetModules, modulesToSave = [] }: Pick<LoraSettings, 'targetModules' | 'modulesToSave'>,
  module: string,
): boolean =>
  targetModules.some((target) => module === target || module.endsWith(`.${target}`)) &&
  !isPartOf(modulesToSave, module);

/** Whether a module is one of those named, by a part of its name, or lies in one. */
export const isPartOf = (modules: readonly string[], module: string): boolean =>
  modules.some((name) => `.${module}.`.includes(`.${name}.`));

/** PEFT's name of a module's adapter weight. */
export const loraName = (module: string, which: 'A' | 'B'): string => `base_model.model.${module}.lora_${which}.weight`;

/** Feeds of ids, int32, by the dimension of the axis that holds what they name: rows of the batch, or tokens of packed ones. */
const DROPOUT_IDS: Readonly<Record<string, string>> = { B: 'dropout_rows', S: 'dropout_tokens' };

/**
 * Draws dropout masks, each call with a salt of its own, from the seed and the ids of rows or tokens that are fed to a
 * run: they draw the same whatever goes through the model with them, and however far it is padded.
 */
class DropoutSource {
  #salt = 0;
  /** uint32 scalar, one for all that an optimizer step reads. */
  readonly #seed: Value;
  readonly #ids = new Map<Dim, Value>();
  readonly #chosen = new Map<Dim, { readonly from: Dim; readonly rows: Value }>();

  constructor(
    private readonly graph: Graph,
    private readonly copies: number,
  ) {
    this.#seed = graph.input('dropout_seed', 'uint32', []);
  }

  /** @param axis of the batch's rows or tokens; null where x has none */
  apply(x: Value, rate: number, axis: number | null): Value {
    if (rate === 0) return x;
    const drawn = { shape: x.shape, rate, salt: ++this.#salt, dtype: x.dtype };
    const rows = axis === null ? {} : { rows: { ids: this.#idsOf(x.shape[axis]!), axis } };
    return mul(x, dropoutMask(this.#seed, { ...drawn, ...rows }));
  }

  /** What is drawn along an axis of so many rows goes by the ids of those that they are, of an axis that holds more. */
  choose(rows: Value, from: Dim): void {
    this.#chosen.set(rows.shape[0]!, { from, rows });
  }

  /** int32 (copies·B) or (copies·S), or of those that were chosen of them. */
  #idsOf(size: Dim): Value {
    const known = this.#ids.get(size);
    if (known !== undefined) return known;
    const chosen = this.#chosen.get(size);
    if (chosen !== undefined) {
      const ids = gatherRows(this.#idsOf(chosen.from), chosen.rows);
      this.#ids.set(size, ids);
      return ids;
    }
    const dim = Object.keys(DROPOUT_IDS).find((each) => mulDims(this.copies, each) === size);
    if (dim === undefined) throw new RangeError(`an axis of ${size} holds neither rows nor tokens of a batch`);
    const fed = this.graph.input(DROPOUT_IDS[dim]!, 'int32', [dim]);
    const ofCopies = Array.from({ length: this.copies }, (_, copy) => add(mul(fed, this.copies), copy));
    const ids = this.copies === 1 ? fed : concat(ofCopies, 0);
    this.#ids.set(size, ids);
    return ids;
  }
}

/**
 * The form in which the frozen base multiplies: as it is stored, or rounded to 8 or 4 bits beforehand. `bytes` is what a base
 * in NF4 writes with: the values of its codes, and the head, rounded to 8 bits.
 */
export type Quantization = 'float32' | 'int8' | 'int4' | 'nf4' | 'bytes';

/** The matrix of a linear layer, Hugging Face's (out, in), in the form in which the base is kept. */
export type LinearWeight =
  | { readonly form: 'float32'; readonly weight: Value }
  /** Rounded to 8 bits in each product: a matrix that learns. */
  | { readonly form: 'rounded'; readonly weight: Value }
  | { readonly form: 'int8'; readonly matrix: Int8Matrix }
  | { readonly form: 'int4'; readonly matrix: Int4Matrix }
  | { readonly form: 'bytes'; readonly matrix: BytesMatrix }
  | { readonly form: 'nf4'; readonly matrix: Nf4Matrix }
  /** As its file holds it, widened piece by piece in each product. */
  | { readonly form: 'streamed'; readonly weight: Value };

/** x (…, in) · Wᵀ → (…, out). */
export function multiply(x: Value, weight: LinearWeight): Value {
  switch (weight.form) {
    case 'float32':
      return matmul(x, weight.weight, { transB: true });
    case 'rounded':
      return roundedMatmul(x, weight.weight);
    case 'int8':
      return int8Matmul(x, weight.matrix);
    case 'int4':
      return int4Matmul(x, weight.matrix);
    case 'bytes':
      return bytesMatmul(x, weight.matrix);
    case 'nf4':
      return nf4Matmul(x, weight.matrix);
    case 'streamed':
      return streamedMatmul(x, weight.weight);
  }
}

/** What the parts of a matrix in 8 bits are called after the name of the matrix; see `Int8Matrix`. */
export const int8Names = (name: string): Readonly<Record<keyof Int8Matrix, string>> => ({
  weight: `${name}.int8_transposed`,
  transposed: `${name}.int8`,
  inputScale: `${name}.int8_input_scale`,
  outputScale: `${name}.int8_output_scale`,
  inputOutliers: `${name}.int8_input_outliers`,
  outputOutliers: `${name}.int8_output_outliers`,
});

export { NF4_BLOCK, NF4_VALUES };

/** Entries of a matrix in 4 bits that share a scale: the largest of these that its rows are whole blocks of. */
const INT4_BLOCKS = [128, 64, 32];
/** The same of a matrix in bytes, as many as in NF4. */
export const BYTES_BLOCK = NF4_BLOCK;

/** The same for 4 bits; see `Int4Matrix`. */
export const int4Names = (name: string): Readonly<Record<keyof Int4Matrix, string>> => ({
  packed: `${name}.int4`,
  scale: `${name}.int4_scale`,
});

/** The block of a matrix with so many inputs; undefined where it cannot be kept in 4 bits. */
export const int4Block = (inputs: number): number | undefined => INT4_BLOCKS.find((block) => inputs % block === 0);

/** The same for bytes; see `BytesMatrix`. */
export const bytesNames = (name: string): Readonly<Record<keyof BytesMatrix, string>> => ({
  packed: `${name}.bytes`,
  scale: `${name}.bytes_scale`,
});

/** Whether a matrix with so many inputs can be kept in bytes: its rows are whole blocks. */
export const fitsBytes = (inputs: number): boolean => inputs % BYTES_BLOCK === 0;

/** The same for NF4; see `Nf4Matrix`. */
export const nf4Names = (name: string): Readonly<Record<'codes' | 'absmax', string>> => ({
  codes: `${name}.nf4`,
  absmax: `${name}.nf4_absmax`,
});

/**
 * Whether NF4 is for a matrix: those of the blocks, where they are a whole number of blocks of codes. The embeddings and
 * the head stay as they are, as bitsandbytes leaves them.
 */
export const fitsNf4 = (name: string, [outputs, inputs]: readonly [outputs: number, inputs: number]): boolean =>
  isOfBlock(name) && (outputs * inputs) % NF4_BLOCK === 0;

/** Whether a weight is part of one of a model's blocks, and not of its embeddings or its head. */
const isOfBlock = (name: string): boolean => /\.layers?\.\d+\./.test(name);

/**
 * How a model's blocks multiply: as their weights are, or in 8-bit integers to which weights and activations are rounded in
 * each product, forward and to the inputs; see `roundedMatmul`.
 */
export type Precision = 'float32' | 'int8';

export interface ContextOptions {
  readonly dtype?: DType;
  /** Default: float32. */
  readonly quantization?: Quantization | undefined;
  /** Of matrices that are as they are stored. Default: float32. */
  readonly precision?: Precision | undefined;
  /** Matrices that are not rounded are read from their files piece by piece in each product; so in NF4 anyway. */
  readonly streamed?: boolean | undefined;
  readonly lora?: LoraSettings;
  /** Masks are drawn: a training graph. */
  readonly training?: boolean;
  /** How often the batch goes through the model at once, each time under dropout of its own. Default: 1. */
  readonly copies?: number;
  /** Gradients compute the blocks of the model again instead of keeping what is in them. */
  readonly recompute?: boolean | undefined;
}

/** What a model's forward pass needs besides its inputs: weights by name, adapters, dropout. */
export class ModelContext {
  readonly dtype: DType;
  readonly lora: LoraSettings | undefined;
  readonly quantization: Quantization;
  readonly copies: number;
  readonly #recompute: boolean;
  readonly #streamed: boolean;
  readonly #precision: Precision;
  readonly #weights = new Map<string, Value>();
  readonly #loraWeights = new Map<string, Value>();
  readonly #adapterInputs = new Map<Value, Value>();
  readonly #dropout: DropoutSource | undefined;

  constructor(
    readonly graph: Graph,
    options: ContextOptions = {},
  ) {
    this.dtype = options.dtype ?? 'float32';
    this.lora = options.lora;
    this.quantization = options.quantization ?? 'float32';
    this.#precision = options.precision ?? 'float32';
    this.#recompute = options.recompute ?? false;
    this.#streamed = options.streamed ?? (this.quantization === 'nf4' || this.quantization === 'bytes');
    this.copies = options.copies ?? 1;
    if (options.training === true) this.#dropout = new DropoutSource(graph, this.copies);
  }

  /** Weights of the model itself that the graph has used, by their Hugging Face names. */
  get weights(): ReadonlyMap<string, Value> {
    return this.#weights;
  }

  /** Weights of the adapter that the graph has used, by their PEFT names. */
  get loraWeights(): ReadonlyMap<string, Value> {
    return this.#loraWeights;
  }

  weight(name: string, shape: readonly Dim[]): Value {
    return this.#declare(this.#weights, name, shape);
  }

  /** The matrix of a linear layer, (out, in), to `multiply` with. */
  linearWeight(name: string, [outputs, inputs]: readonly [outputs: number, inputs: number]): LinearWeight {
    const part = (partName: string, dtype: DType, shape: readonly Dim[]): Value =>
      this.#declare(this.#weights, partName, shape, dtype);
    const blockwise = (
      { packed, scale }: Record<'packed' | 'scale', string>,
      size: number,
      bits: number,
    ): Int4Matrix => ({
      packed: part(packed, 'uint8', [outputs, inputs / size, (size * bits) / 8]),
      scale: part(scale, 'float32', [outputs, inputs / size]),
    });
    const block = int4Block(inputs);
    if (this.quantization === 'int4' && block !== undefined) {
      return { form: 'int4', matrix: blockwise(int4Names(name), block, 4) };
    }
    if (this.quantization === 'bytes' && fitsBytes(inputs)) {
      return { form: 'bytes', matrix: blockwise(bytesNames(name), BYTES_BLOCK, 8) };
    }
    if ((this.quantization === 'nf4' || this.quantization === 'bytes') && fitsNf4(name, [outputs, inputs])) {
      const { codes, absmax } = nf4Names(name);
      return {
        form: 'nf4',
        matrix: {
          rows: outputs,
          columns: inputs,
          codes: part(codes, 'uint8', [(outputs * inputs) / 2]),
          absmax: part(absmax, 'float32', [(outputs * inputs) / NF4_BLOCK]),
        },
      };
    }
    if (this.quantization !== 'int8') {
      const rounds = this.#precision === 'int8' && isOfBlock(name);
      const form = this.#streamed ? 'streamed' : rounds ? 'rounded' : 'float32';
      return { form, weight: this.weight(name, [outputs, inputs]) };
    }
    const names = int8Names(name);
    return {
      form: 'int8',
      matrix: {
        weight: part(names.weight, 'int8', [inputs, outputs]),
        transposed: part(names.transposed, 'int8', [outputs, inputs]),
        inputScale: part(names.inputScale, 'float32', [inputs]),
        outputScale: part(names.outputScale, 'float32', [outputs]),
        // How many there are the file says.
        inputOutliers: part(names.inputOutliers, 'int32', [`outliers_${this.#weights.size}`]),
        outputOutliers: part(names.outputOutliers, 'int32', [`outliers_${this.#weights.size}`]),
      },
    };
  }

  loraWeight(name: string, shape: readonly Dim[]): Value {
    return this.#declare(this.#loraWeights, name, shape);
  }

  /** A block of the model: what lies in it is computed again for the gradient, where that was asked for. */
  block<T>(body: () => T): T {
    return this.#recompute ? this.graph.recompute(body) : body();
  }

  /**
   * Dropout in a training graph, nothing elsewhere.
   *
   * @param axis of the batch's rows or tokens in x; null where they share it
   */
  dropout(x: Value, rate: number, axis: number | null = 0): Value {
    return this.#dropout?.apply(x, rate, axis) ?? x;
  }

  /** Rows int32 (N) of x (…, D), flattened, → (N, D); they drop out what they would among all others. */
  chosen(x: Value, rows: Value): Value {
    const all = flattenRows(x);
    this.#dropout?.choose(rows, all.shape[0]!);
    return gatherRows(all, rows);
  }

  /** x under the adapter's dropout: all modules that read the same x read the same of it. */
  adapterInput(x: Value): Value {
    let dropped = this.#adapterInputs.get(x);
    if (dropped === undefined) {
      dropped = this.dropout(x, this.lora?.dropout ?? 0);
      this.#adapterInputs.set(x, dropped);
    }
    return dropped;
  }

  #declare(known: Map<string, Value>, name: string, shape: readonly Dim[], dtype = this.dtype): Value {
    let value = known.get(name);
    if (value === undefined) {
      value = this.graph.parameter(name, dtype, shape);
      known.set(name, value);
    }
    return value;
  }
}
