import type { ModelFolder } from '../src/checkpoints/model-folder.js';

/** The sizes of a model that the least work for a token follows from. */
export interface ModelCost {
  /** Elements of all matrices of the blocks, and how many blocks there are. */
  readonly layerWeights: number;
  readonly layers: number;
  /** Of the last block, elements of the matrices behind the attention of a causal model: only what is asked of it needs them. */
  readonly afterAttention: number;
  /** Vocabulary × hidden size. */
  readonly headWeights: number;
  /** Such as `4 layers of 1024`. */
  readonly description: string;
}

/** Counts the matrices of a model's blocks. */
export function costOf({ config, weights }: Pick<ModelFolder, 'config' | 'weights'>): ModelCost {
  const inBlocks = [...weights.values()].filter(
    ({ name, shape }) => shape.length === 2 && /\.layers?\.\d+\./.test(name),
  );
  const { numHiddenLayers: layers, hiddenSize, vocabSize } = config;
  const elements = (matrices: typeof inBlocks): number =>
    matrices.reduce((total, { shape }) => total + shape[0]! * shape[1]!, 0);
  const last = inBlocks.filter(({ name }) => name.includes(`.${layers - 1}.`));
  return {
    layerWeights: elements(inBlocks),
    afterAttention: elements(last.filter(({ name }) => /\.(o_proj|mlp\.\w+)\.weight$/.test(name))),
    layers,
    headWeights: vocabSize * hiddenSize,
    description: `${layers} layers of ${hiddenSize}, vocabulary ${vocabSize.toLocaleString('en')}`,
  };
}
