import { UserError } from '../errors.js';
import type { Tensor } from '../graph/tensor.js';
import { tensor } from '../graph/tensor.js';
import type { DeviceTensor, Program, Runtime } from '../runtime/runtime.js';
import {
  accumulationGraph,
  adamwGraph,
  gradNormGraph,
  stepScalars,
  type AdamWSettings,
  type OptimizedParameter,
} from './adamw.js';

type Buffers = ReadonlyMap<string, DeviceTensor>;

/** Weights, moments and gradients that live on the device, and the update that is made to them in place. */
export class Optimizer {
  #step = 0;
  #fresh: Buffers | undefined;
  #accumulate: Program | undefined;

  private constructor(
    private readonly runtime: Runtime,
    private readonly parameters: readonly OptimizedParameter[],
    private readonly settings: AdamWSettings,
    private readonly programs: { readonly norm: Program; readonly update: Program },
    /** Current weights by parameter name: feed these to the training graph. */
    readonly weights: Buffers,
    private readonly moments: { readonly first: Buffers; readonly second: Buffers },
    private readonly total: Buffers,
  ) {}

  static async create(
    runtime: Runtime,
    parameters: readonly OptimizedParameter[],
    initial: ReadonlyMap<string, Tensor>,
    settings: AdamWSettings,
  ): Promise<Optimizer> {
    const weights = new Map<string, DeviceTensor>();
    for (const { name, shape } of parameters) {
      const value = initial.get(name);
      if (value === undefined) throw new RangeError(`the parameter '${name}' has no initial value`);
      if (value.shape.join() !== shape.join()) {
        throw new RangeError(
          `'${name}' starts as (${value.shape.join(', ')}) where the graph has (${shape.join(', ')})`,
        );
      }
      weights.set(name, await runtime.upload(value));
    }
    const zeros = async (): Promise<Buffers> => buffersFor(runtime, parameters);
    const moments = { first: await zeros(), second: await zeros() };
    const programs = {
      norm: await runtime.compile(gradNormGraph(parameters)),
      update: await runtime.compile(adamwGraph(parameters, settings)),
    };
    return new Optimizer(runtime, parameters, settings, programs, weights, moments, await zeros());
  }

  /** Updates made to the weights; a step that is skipped makes none. */
  get step(): number {
    return this.#step;
  }

  /**
   * Where a training run writes its gradients (named like the parameters): straight into the total for the first
   * micro-batch of a step, beside it for the others. Call `gathered` after each run.
   */
  async gradientTargets(microBatch: number): Promise<Buffers> {
    if (microBatch === 0) return this.total;
    this.#fresh ??= await buffersFor(this.runtime, this.parameters);
    return this.#fresh;
  }

  /** Adds the gradients of a micro-batch after the first to the total. */
  async gathered(microBatch: number): Promise<void> {
    if (microBatch === 0) return;
    this.#accumulate ??= await this.runtime.compile(accumulationGraph(this.parameters));
    const feeds = { ...prefixed('total/', this.total), ...prefixed('fresh/', this.#fresh!) };
    await this.#accumulate.run(feeds, prefixed('new_total/', this.total));
  }

  /** The norm of the gathered gradients, before clipping. */
  async gradNorm(): Promise<number> {
    const { grad_norm: norm } = await this.programs.norm.run(prefixed('gradient/', this.total));
    return Number(norm!.data[0]);
  }

  /** Updates the weights from the gathered gradients, whose norm `gradNorm` gave. */
  async update(learningRate: number, gradNorm: number): Promise<void> {
    this.#step++;
    const feeds: Record<string, DeviceTensor | Tensor> = prefixed('gradient/', this.total);
    const into: Record<string, DeviceTensor> = {};
    for (const [kind, buffers] of this.#state()) {
      Object.assign(feeds, prefixed(`${kind}/`, buffers));
      Object.assign(into, prefixed(`new_${kind}/`, buffers));
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

  /** Everything that the next step depends on: weights and moments, named `kind/parameter`. */
  async readState(): Promise<Map<string, Tensor<'float32'>>> {
    const all = new Map<string, Tensor<'float32'>>();
    for (const [kind, buffers] of this.#state()) {
      for (const [name, value] of await readAll(buffers)) all.set(`${kind}/${name}`, value);
    }
    return all;
  }

  /**
   * Puts back what `readState` gave at a step, all of it or nothing.
   *
   * @param where names the state in errors
   * @throws UserError `checkpoint.model` for the state of other parameters
   */
  async restore(step: number, state: ReadonlyMap<string, Tensor>, where?: string): Promise<void> {
    const buffers = new Map<string, DeviceTensor>();
    for (const [kind, all] of this.#state()) for (const [name, buffer] of all) buffers.set(`${kind}/${name}`, buffer);
    for (const [name, buffer] of buffers) {
      const shape = state.get(name)?.shape;
      if (shape?.join() !== buffer.shape.join()) throw otherModel(name, shape, buffer.shape, where);
    }
    for (const name of state.keys())
      if (!buffers.has(name)) throw otherModel(name, state.get(name)!.shape, undefined, where);
    for (const [name, buffer] of buffers) await buffer.write(state.get(name)!);
    this.#step = step;
  }

  async dispose(): Promise<void> {
    await this.programs.norm.dispose();
    await this.programs.update.dispose();
    await this.#accumulate?.dispose();
    const all = [this.total, this.#fresh, ...this.#state().values()];
    for (const buffers of all) for (const buffer of buffers?.values() ?? []) await buffer.dispose();
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

const prefixed = (prefix: string, buffers: Buffers): Record<string, DeviceTensor> =>
  Object.fromEntries([...buffers].map(([name, buffer]) => [prefix + name, buffer]));

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
