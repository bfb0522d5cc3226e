import type { CausalConfig } from './config/causal.js';

/**
 * What makes some channels of a matrix's input larger than others, as far as weights tell: the norm before it and the
 * rows of the matrices that write what it normalises, or the rows of the matrices that compute it, whose values are
 * multiplied.
 */
export type ChannelSource =
  | { readonly norm: string; readonly writers: readonly string[] }
  | {
      readonly rows: readonly string[];
      /** Which row an input channel comes from. */
      readonly rowOf: (channel: number) => number;
    };

/** The matrices of a causal decoder's linear layers, the head's among them, and where their inputs come from. */
export function channelSources(config: CausalConfig): ReadonlyMap<string, ChannelSource> {
  const { headDim, numAttentionHeads, numKeyValueHeads } = config;
  const sources = new Map<string, ChannelSource>();
  // Several query heads read one value head.
  const group = numAttentionHeads / numKeyValueHeads;
  const valueRow = (channel: number): number =>
    Math.floor(Math.floor(channel / headDim) / group) * headDim + (channel % headDim);
  const layers = Array.from({ length: config.numHiddenLayers }, (_, layer) => `model.layers.${layer}`);
  const writers = layers.flatMap((block) => [`${block}.self_attn.o_proj.weight`, `${block}.mlp.down_proj.weight`]);
  const after = (norm: string): ChannelSource => ({ norm: `${norm}.weight`, writers });
  for (const block of layers) {
    const [attention, mlp] = [`${block}.self_attn`, `${block}.mlp`];
    for (const which of ['q', 'k', 'v']) {
      sources.set(`${attention}.${which}_proj.weight`, after(`${block}.input_layernorm`));
    }
    sources.set(`${attention}.o_proj.weight`, { rows: [`${attention}.v_proj.weight`], rowOf: valueRow });
    for (const which of ['gate', 'up']) {
      sources.set(`${mlp}.${which}_proj.weight`, after(`${block}.post_attention_layernorm`));
    }
    sources.set(`${mlp}.down_proj.weight`, {
      rows: [`${mlp}.gate_proj.weight`, `${mlp}.up_proj.weight`],
      rowOf: (channel) => channel,
    });
  }
  return sources.set(headName(config), after('model.norm'));
}

export const EMBEDDINGS = 'model.embed_tokens.weight';

/** The head's matrix: that of the embeddings where they are tied. */
export const headName = (config: CausalConfig): string => (config.tieWordEmbeddings ? EMBEDDINGS : 'lm_head.weight');
