import { checkAdapter, loraNamesOf, openAdapter, savedTensors } from '../checkpoints/adapter.js';
import { loraOf } from '../checkpoints/adapter-config.js';
import { loadTensors, openModelFolder, type ModelFolder } from '../checkpoints/model-folder.js';
import { withQuantized } from '../checkpoints/quantized/prepared.js';
import { UserError } from '../errors.js';
import type { Device } from '../config/common.js';
import type { Tensor } from '../graph/tensor.js';
import { writes, type CausalConfig } from '../models/config/causal.js';
import { channelSources } from '../models/channel-sources.js';
import type { Quantization } from '../nn/context.js';
import type { DeviceTensor, Runtime } from '../runtime/runtime.js';
import { loadChatTemplate, type ChatTemplate } from '../text/chat-template.js';
import { loadTokenizerIfThere } from '../text/load-tokenizer.js';
import { assertTokenizerFits, type Tokenizer } from '../text/tokenizer.js';
import type { CausalModel } from './decoder.js';

/** A causal model folder, opened for writing texts: with its tokenizer and, where asked for, an adapter. */
export interface Policy {
  readonly folder: ModelFolder;
  readonly config: CausalConfig;
  readonly model: CausalModel;
  /** The adapter's weights, to feed; undefined without an adapter. */
  readonly adapter: Readonly<Record<string, Tensor>> | undefined;
  /** Undefined where the folder has none: then only token ids go in and out. */
  readonly tokenizer: Tokenizer | undefined;
  /** How the model wants conversations written, where it says. */
  readonly chat: ChatTemplate | undefined;
  /** Every id that ends a text. */
  readonly eosTokenIds: ReadonlySet<number>;
  readonly padTokenId: number;
}

/** A causal model folder and, where asked for, an adapter, opened for token ids. */
export type OpenedModel = Pick<Policy, 'folder' | 'config' | 'model' | 'adapter'>;

interface OpenOptions {
  /** The form in which the base multiplies; another than the stored one is prepared first. Default: float32. */
  readonly quantization?: Quantization;
}

/**
 * Opens a causal model and an adapter for it.
 *
 * @throws UserError when a folder is missing or wrong, is no causal model, or the parts do not fit each other
 */
export async function openPolicy(modelDir: string, adapterDir?: string, options: OpenOptions = {}): Promise<Policy> {
  return withTokenizer(await openCausal(modelDir, adapterDir, options));
}

/** The same without its tokenizer: a large one takes as long to read as a session to make. */
export async function openCausal(
  modelDir: string,
  adapterDir?: string,
  { quantization = 'float32' }: OpenOptions = {},
): Promise<OpenedModel> {
  const folder = await openModelFolder(modelDir);
  const { config } = folder;
  if (config.kind !== 'causal' || !writes(config)) {
    throw new UserError({
      code: 'model.not-causal',
      message: `A ${config.architecture} cannot write texts.`,
      where: modelDir,
      fix: 'Give a causal language model, such as assets/nano-qwen3.',
    });
  }
  const weights =
    quantization === 'float32' ? folder.weights : await withQuantized(folder, channelSources(config), quantization);
  const base = { config, weights, quantization };
  if (adapterDir === undefined) return { folder, config, model: base, adapter: undefined };
  const adapter = await openAdapter(adapterDir);
  checkAdapter(adapter, folder.weights);
  const saved = savedTensors(adapter);
  if (saved.size > 0 && quantization !== 'float32') {
    throw new UserError({
      code: 'adapter.saved-modules',
      message: `The adapter replaces whole modules (${adapter.config.modulesToSave!.join(', ')}), which a quantised base does not let it do.`,
      where: adapterDir,
      fix: 'Use the float32 form, or merge the adapter into the model first.',
    });
  }
  const tensors = await loadTensors(adapter.weights, loraNamesOf(adapter));
  const adapted = { ...base, weights: new Map([...base.weights, ...saved]), lora: loraOf(adapter) };
  return { folder, config, model: adapted, adapter: Object.fromEntries(tensors) };
}

/**
 * An opened model with the tokenizer of its folder.
 *
 * @throws UserError when the tokenizer is broken or has more tokens than the model
 */
export async function withTokenizer(opened: OpenedModel): Promise<Policy> {
  const { folder, config } = opened;
  const tokenizer = await loadTokenizerIfThere(folder.dir);
  if (tokenizer !== undefined) assertTokenizerFits(tokenizer, config.vocabSize, folder.dir);
  const eos = tokenizer?.special.eos;
  const eosTokenIds = [...folder.eosTokenIds, ...(eos === undefined ? [] : [eos])].sort((a, b) => a - b);
  const padTokenId = tokenizer?.special.pad ?? config.padTokenId ?? eosTokenIds[0] ?? 0;
  const chat = tokenizer === undefined ? undefined : await loadChatTemplate(folder.dir, tokenizer);
  return { ...opened, tokenizer, chat, eosTokenIds: new Set(eosTokenIds), padTokenId };
}

/**
 * The form in which a base writes texts where no other is asked for: its own, but for NF4 on a processor, where a product
 * widens the whole matrix however few rows there are. There it is the values of the codes rounded to bytes.
 */
export const writingForm = (quantization: Quantization, device: Device): Quantization =>
  quantization === 'nf4' && device === 'cpu' ? 'bytes' : quantization;

/** A policy's model as it writes texts; see `writingForm`. The form is prepared where it is another. */
export async function writingModel({ model, folder, config }: OpenedModel, device: Device): Promise<CausalModel> {
  const quantization = writingForm(model.quantization ?? 'float32', device);
  if (quantization !== 'bytes') return model;
  return { ...model, quantization, weights: await withQuantized(folder, channelSources(config), quantization) };
}

/** Copies an adapter's weights to where computation happens, once for many runs; nothing where there is no adapter. */
export async function uploadAdapter(
  runtime: Runtime,
  { adapter }: Pick<Policy, 'adapter'>,
): Promise<{ readonly adapter?: Readonly<Record<string, DeviceTensor>> }> {
  if (adapter === undefined) return {};
  const uploaded: Record<string, DeviceTensor> = {};
  for (const [name, tensor] of Object.entries(adapter)) uploaded[name] = await runtime.upload(tensor);
  return { adapter: uploaded };
}

/** The tokenizer of a policy that texts are asked of. */
export function requireTokenizer({ tokenizer, folder }: Pick<Policy, 'tokenizer' | 'folder'>): Tokenizer {
  if (tokenizer !== undefined) return tokenizer;
  throw new UserError({
    code: 'tokenizer.missing-file',
    message: 'The model folder has no tokenizer, so it can take token ids only.',
    where: folder.dir,
    fix: 'Add tokenizer.json and tokenizer_config.json to it, or give input_ids.',
  });
}
