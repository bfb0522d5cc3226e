import { UserError } from '../errors.js';
import type { Tensor } from '../graph/tensor.js';
import { tensor } from '../graph/tensor.js';
import type { DeviceTensor, Program, Runtime } from '../runtime/runtime.js';
import { adamwGraph, gradNormGraph, stepScalars, type AdamWSettings, type OptimizedParameter } from './adamw.js';
import { piecesOf, type Piece } from './pieces.js';

type Buffers = ReadonlyMap<string, DeviceTensor>;

/** What a parameter starts as: a tensor, or how to make it, which is done when its turn comes and not kept. */
export type InitialValue = Tensor | (() => Promise<Tensor>);

/** A tensor of a checkpoint. */
export interface SavedTensor {
  readonly shape: readonly number[];
  read(): Promise<Tensor>;
}

/** Weights, moments and gradients that live on the device, and the update that is made to them in place. */
export class Optimizer {
  #step = 0;

  private constructor(
    private readonly runtime: Runtime,
    private readonly pieces: readonly Piece[],
    private readonly settings: AdamWSettings,
    private readonly programs: { readonly norm: Program; readonly update: Program },
    /** Current weights by parameter name: feed these to the training graph. */
    readonly weights: Buffers,
    private readonly moments: { readonly first: Buffers; readonly second: Buffers },
    /** Where a training run finds the gradients of the batches before it and writes the sums, by parameter name. */
    readonly gradients: Buffers,
  ) {}

  static async create(
    runtime: Runtime,
    parameters: readonly OptimizedParameter[],
    initial: ReadonlyMap<string, InitialValue>,
    settings: AdamWSettings,
  ): Promise<Optimizer> {
    const weights = new Map<string, DeviceTensor>();
    for (const { name, shape } of parameters) {
      const given = initial.get(name);
      if (given === undefined) throw new RangeError(`the parameter '${name}' has no initial value`);
      const isMade = typeof given === 'function';
      const value = isMade ? await given() : given;
      if (value.shape.join() !== shape.join()) {
        throw new RangeError(
          `'${name}' starts as (${value.shape.join(', ')}) where the graph has (${shape.join(', ')})`,
        );
      }
      weights.set(name, await runtime.upload(value, { move: isMade }));
    }
    const zeros = async (): Promise<Buffers> => buffersFor(runtime, parameters);
    const moments = { first: await zeros(), second: await zeros() };
    const pieces = runtime.hasParts ? piecesOf(parameters) : parameters;
    const programs = {
      norm: await runtime.compile(gradNormGraph(pieces)),
      update: await runtime.compile(adamwGraph(pieces, settings)),
    };
    return new Optimizer(runtime, pieces, settings, programs, weights, moments, await zeros());
  }

  /** Updates made to the weights; a step that is skipped makes none. */
  get step(): number {
    return this.#step;
  }

  /** Begins a step: no batch has added its gradients yet. */
  async clearGradients(): Promise<void> {
    await this.runtime.clear(this.gradients.values());
  }

  /** The norm of the gathered gradients, before clipping. */
  async gradNorm(): Promise<number> {
    const { grad_norm: norm } = await this.programs.norm.run(this.#inPieces('gradient/', this.gradients));
    return Number(norm!.data[0]);
  }

  /** Updates the weights from the gathered gradients, whose norm `gradNorm` gave. */
  async update(learningRate: number, gradNorm: number): Promise<void> {
    this.#step++;
    const feeds: Record<string, DeviceTensor | Tensor> = this.#inPieces('gradient/', this.gradients);
    const into: Record<string, DeviceTensor> = {};
    for (const [kind, buffers] of this.#state()) {
      Object.assign(feeds, this.#inPieces(`${kind}/`, buffers));
      Object.assign(into, this.#inPieces(`new_${kind}/`, buffers));
    }
    const scalars = { ...stepScalars(this.settings, learningRate, this.#step), grad_norm: gradNorm };
    const { update } = this.programs;
    for (const [name, value] of Object.entries(scalars)) {
      if (update.inputs.has(name)) feeds[name] = tensor('float32', [], [value]);
    }
    await update.run(feeds, into);
  }

  /** Copies of the current weights. */
  async readWeights(): Promise<Map<string, Tensor<'float32'>>> {
    return readAll(this.weights);
  }

  /** Everything that the next step depends on: weights and moments where they live, named `kind/parameter`. */
  get state(): Buffers {
    const all = new Map<string, DeviceTensor>();
    for (const [kind, buffers] of this.#state())
      for (const [name, buffer] of buffers) all.set(`${kind}/${name}`, buffer);
    return all;
  }

  /** A copy of it. */
  async readState(): Promise<Map<string, Tensor<'float32'>>> {
    return readAll(this.state);
  }

  /**
   * Puts back what `state` was at a step, one tensor after the other; of a state that does not fit, nothing.
   *
   * @param where names the state in errors
   * @throws UserError `checkpoint.model` for the state of other parameters
   */
  async restore(step: number, saved: ReadonlyMap<string, SavedTensor>, where?: string): Promise<void> {
    const buffers = this.state;
    for (const [name, buffer] of buffers) {
      const shape = saved.get(name)?.shape;
      if (shape?.join() !== buffer.shape.join()) throw otherModel(name, shape, buffer.shape, where);
    }
    for (const [name, { shape }] of saved) if (!buffers.has(name)) throw otherModel(name, shape, undefined, where);
    for (const [name, buffer] of buffers) await buffer.write(await saved.get(name)!.read());
    this.#step = step;
  }

  async dispose(): Promise<void> {
    await this.programs.norm.dispose();
    await this.programs.update.dispose();
    for (const buffers of [this.gradients, ...this.#state().values()]) {
      for (const buffer of buffers.values()) await buffer.dispose();
    }
  }

  /** The buffers of parameters piece by piece, with a prefix to each name. */
  #inPieces(prefix: string, buffers: Buffers): Record<string, DeviceTensor> {
    const views = this.pieces.map(({ name, shape, of }) => {
      const buffer = buffers.get(of?.parameter ?? name)!;
      return [prefix + name, of === undefined ? buffer : buffer.part(of.start, shape[0]!)] as const;
    });
    return Object.fromEntries(views);
  }

  #state(): Map<string, Buffers> {
    return new Map([
      ['weight', this.weights],
      ['first_moment', this.moments.first],
      ['second_moment', this.moments.second],
    ]);
  }
}

function otherModel(
  name: string,
  found: readonly number[] | undefined,
  expected: readonly number[] | undefined,
  where: string | undefined,
): UserError {
  const say = (shape: readonly number[] | undefined): string =>
    shape === undefined ? 'nothing' : `(${shape.join(', ')})`;
  return new UserError({
    code: 'checkpoint.model',
    message: `The checkpoint is of another model or adapter: '${name}' is ${say(found)} there and ${say(expected)} here.`,
    ...(where !== undefined && { where }),
    fix: 'Resume with the model and settings that it was made with, or choose another --out.',
  });
}

async function buffersFor(runtime: Runtime, parameters: readonly OptimizedParameter[]): Promise<Buffers> {
  const buffers = new Map<string, DeviceTensor>();
  for (const { name, shape } of parameters) buffers.set(name, await runtime.allocate('float32', shape));
  return buffers;
}

async function readAll(buffers: Buffers): Promise<Map<string, Tensor<'float32'>>> {
  const tensors = new Map<string, Tensor<'float32'>>();
  for (const [name, buffer] of buffers) tensors.set(name, (await buffer.read()) as Tensor<'float32'>);
  return tensors;
}
