import type { Dim } from '../graph/dim.js';
import type { Graph, Value } from '../graph/graph.js';
import type { DType } from '../graph/tensor.js';
import { dropoutMask, mul } from '../ops/build.js';

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

export interface ContextOptions {
  readonly dtype?: DType;
  readonly lora?: LoraSettings;
  /** Masks are drawn: a training graph. */
  readonly training?: boolean;
}

/** What a model's forward pass needs besides its inputs: weights by name, adapters, dropout. */
export class ModelContext {
  readonly dtype: DType;
  readonly lora: LoraSettings | undefined;
  readonly #weights = new Map<string, Value>();
  readonly #loraWeights = new Map<string, Value>();
  readonly #dropout: DropoutSource | undefined;

  constructor(
    readonly graph: Graph,
    options: ContextOptions = {},
  ) {
    this.dtype = options.dtype ?? 'float32';
    this.lora = options.lora;
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

  loraWeight(name: string, shape: readonly Dim[]): Value {
    return this.#declare(this.#loraWeights, name, shape);
  }

  /** Dropout in a training graph, nothing elsewhere. */
  dropout(x: Value, rate: number): Value {
    return this.#dropout?.apply(x, rate) ?? x;
  }

  #declare(known: Map<string, Value>, name: string, shape: readonly Dim[]): Value {
    let value = known.get(name);
    if (value === undefined) {
      value = this.graph.parameter(name, this.dtype, shape);
      known.set(name, value);
    }
    return value;
  }
}
