import { addSummedGradients, gradientName, sumName } from '../autodiff/summed-gradients.js';
import type { Graph, Value } from '../graph/graph.js';
import type { Tensor } from '../graph/tensor.js';
import type { AdamWSettings } from '../optim/adamw.js';
import { Optimizer, type InitialValue } from '../optim/optimizer.js';
import type { DeviceTensor, Program, Runtime, StoredTensor } from '../runtime/runtime.js';
import { firstNonFinite } from './probe.js';

export type Feeds = Readonly<Record<string, Tensor | DeviceTensor>>;

export interface LearnerSetup {
  /** A training graph whose outputs are what to report, `loss` among them; gradients are added here. */
  readonly graph: Graph;
  readonly loss: Value;
  /** Parameters that learn, by name. */
  readonly trainable: ReadonlyMap<string, Value>;
  readonly initial: ReadonlyMap<string, InitialValue>;
  /** Files of the parameters that do not learn. */
  readonly frozen?: ReadonlyMap<string, StoredTensor>;
  readonly adamw: AdamWSettings;
}

/** Biases and the weights of norms are not decayed, as the Hugging Face trainer has it. */
export const isDecayed = (name: string): boolean => !/bias|norm/i.test(name);

/** A training graph together with the optimizer of its parameters. */
export class Learner {
  #failed: readonly Feeds[] = [];

  private constructor(
    private readonly program: Program,
    readonly optimizer: Optimizer,
    private readonly probe: (feeds: Feeds) => Promise<string | undefined>,
  ) {}

  static async create(runtime: Runtime, setup: LearnerSetup): Promise<Learner> {
    const { graph, loss, trainable, initial, frozen, adamw } = setup;
    addSummedGradients(loss, trainable);
    const bound = new Map([...(frozen ?? [])].filter(([name]) => !trainable.has(name)));
    const program = await runtime.compile(graph, bound);
    const parameters = [...trainable].map(([name, value]) => ({
      name,
      shape: value.shape as readonly number[],
      decay: isDecayed(name),
    }));
    const probe = async (feeds: Feeds): Promise<string | undefined> => firstNonFinite(runtime, graph, bound, feeds);
    return new Learner(program, await Optimizer.create(runtime, parameters, initial, adamw), probe);
  }

  /** The current weights, to feed to other graphs of the same model. */
  get weights(): Readonly<Record<string, DeviceTensor>> {
    return Object.fromEntries(this.optimizer.weights);
  }

  /** Of the feeds of a batch, those that the graph reads: which ones depends on the loss. */
  accepted(feeds: Feeds): Feeds {
    return Object.fromEntries(Object.entries(feeds).filter(([name]) => this.program.inputs.has(name)));
  }

  /**
   * One optimizer step from the summed gradients of micro-batches: each batch's loss must be scaled so that their sum is
   * the step's loss. Where loss or gradients are not finite the step is skipped: weights, moments and their count stay
   * as they were. Returns the reported outputs of each batch.
   */
  async step(
    batches: readonly Feeds[],
    learningRate: number,
  ): Promise<{ reports: Record<string, Tensor>[]; gradNorm: number }> {
    const reports: Record<string, Tensor>[] = [];
    await this.optimizer.clearGradients();
    const into = this.#gradients(sumName);
    for (const batch of batches) reports.push(await this.program.run(this.#feeds(batch), into));
    const loss = reports.reduce((total, report) => total + Number(report['loss']!.data[0]), 0);
    const gradNorm = await this.optimizer.gradNorm();
    if (Number.isFinite(loss) && Number.isFinite(gradNorm)) await this.optimizer.update(learningRate, gradNorm);
    else this.#failed = batches;
    return { reports, gradNorm };
  }

  /**
   * Where in the graph a number of the last skipped step first was not finite; undefined where every one is. The learner
   * takes no step afterwards.
   */
  async diagnose(): Promise<string | undefined> {
    for (const [i, batch] of this.#failed.entries()) {
      await this.optimizer.clearGradients();
      const found = await this.probe(this.#feeds(batch));
      if (found !== undefined) return this.#failed.length === 1 ? found : `micro-batch ${i + 1}: ${found}`;
    }
    return undefined;
  }

  #feeds(batch: Feeds): Feeds {
    return { ...batch, ...this.weights, ...this.#gradients(gradientName) };
  }

  /** Where gradients are summed, by what the graph calls them. */
  #gradients(named: (parameter: string) => string): Record<string, DeviceTensor> {
    return Object.fromEntries(Array.from(this.optimizer.gradients, ([name, buffer]) => [named(name), buffer]));
  }

  async dispose(): Promise<void> {
    await this.program.dispose();
    await this.optimizer.dispose();
  }
}
