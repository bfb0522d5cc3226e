import type { Dim } from '../graph/dim.js';
import type { Graph, Value } from '../graph/graph.js';
import type { DType } from '../graph/tensor.js';
import { dropoutMask, int8Matmul, matmul, mul, type Int8Matrix } from '../ops/build.js';

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
}

export const loraScale = ({ r, alpha, rankStabilized }: LoraSettings): number =>
  rankStabilized === true ? alpha / Math.sqrt(r) : alpha / r;

/** Whether LoRA adapts a module: its name ends with a target. */
export const isTarget = (settings: LoraSettings, module: string): boolean =>
  settings.targetModules.some((target) => module === target || module.endsWith(`.${target}`));

/** PEFT's name of a module's adapter weight. */
export const loraName = (module: string, which: 'A' | 'B'): string => `base_model.model.${module}.lora_${which}.weight`;

/** Draws dropout masks, each call with a salt of its own, all from the seed fed to a run. */
export class DropoutSource {
  #salt = 0;

  constructor(
    /** uint32 scalar. */
    readonly seed: Value,
  ) {}

  apply(x: Value, rate: number): Value {
    return rate === 0 ? x : mul(x, dropoutMask(this.seed, x.shape, rate, ++this.#salt, x.dtype));
  }
}

/** The form in which the frozen base multiplies: as it is stored, or rounded to 8 bits beforehand. */
export type Quantization = 'float32' | 'int8';

/** The matrix of a linear layer, Hugging Face's (out, in), in the form in which the base is kept. */
export type LinearWeight =
  { readonly form: 'float32'; readonly weight: Value } | { readonly form: 'int8'; readonly matrix: Int8Matrix };

/** x (…, in) · Wᵀ → (…, out). */
export const multiply = (x: Value, weight: LinearWeight): Value =>
  weight.form === 'int8' ? int8Matmul(x, weight.matrix) : matmul(x, weight.weight, { transB: true });

/** What the parts of a matrix in 8 bits are called after the name of the matrix; see `Int8Matrix`. */
export const int8Names = (name: string): Readonly<Record<keyof Int8Matrix, string>> => ({
  weight: `${name}.int8_transposed`,
  transposed: `${name}.int8`,
  inputScale: `${name}.int8_input_scale`,
  outputScale: `${name}.int8_output_scale`,
});

export interface ContextOptions {
  readonly dtype?: DType;
  /** Default: float32. */
  readonly quantization?: Quantization | undefined;
  readonly lora?: LoraSettings;
  /** Masks are drawn: a training graph. */
  readonly training?: boolean;
}

/** What a model's forward pass needs besides its inputs: weights by name, adapters, dropout. */
export class ModelContext {
  readonly dtype: DType;
  readonly lora: LoraSettings | undefined;
  readonly quantization: Quantization;
  readonly #linear = new Map<string, readonly [outputs: number, inputs: number]>();
  readonly #weights = new Map<string, Value>();
  readonly #loraWeights = new Map<string, Value>();
  readonly #dropout: DropoutSource | undefined;

  constructor(
    readonly graph: Graph,
    options: ContextOptions = {},
  ) {
    this.dtype = options.dtype ?? 'float32';
    this.lora = options.lora;
    this.quantization = options.quantization ?? 'float32';
    if (options.training === true) this.#dropout = new DropoutSource(graph.input('dropout_seed', 'uint32', []));
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

  /** Names and shapes of the matrices that linear layers have asked for, whatever their form. */
  get linearWeights(): ReadonlyMap<string, readonly [outputs: number, inputs: number]> {
    return this.#linear;
  }

  /** The matrix of a linear layer, (out, in), to `multiply` with. */
  linearWeight(name: string, [outputs, inputs]: readonly [outputs: number, inputs: number]): LinearWeight {
    this.#linear.set(name, [outputs, inputs]);
    if (this.quantization === 'float32') return { form: 'float32', weight: this.weight(name, [outputs, inputs]) };
    const names = int8Names(name);
    const part = (which: keyof Int8Matrix, dtype: DType, shape: readonly Dim[]): Value =>
      this.#declare(this.#weights, names[which], shape, dtype);
    return {
      form: 'int8',
      matrix: {
        weight: part('weight', 'int8', [inputs, outputs]),
        transposed: part('transposed', 'int8', [outputs, inputs]),
        inputScale: part('inputScale', 'float32', [inputs]),
        outputScale: part('outputScale', 'float32', [outputs]),
      },
    };
  }

  loraWeight(name: string, shape: readonly Dim[]): Value {
    return this.#declare(this.#loraWeights, name, shape);
  }

  /** Dropout in a training graph, nothing elsewhere. */
  dropout(x: Value, rate: number): Value {
    return this.#dropout?.apply(x, rate) ?? x;
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
