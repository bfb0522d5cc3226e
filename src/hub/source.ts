import type { UserError } from '../errors.js';
import type { Patience } from '../transfer/fetch-file.js';

/** A file of a model on its server. */
export interface HubFile {
  readonly path: string;
  readonly bytes: number;
  readonly url: string;
  /** SHA-256 of the content, or Git's id of it (SHA-1 of a blob) where the server tells only that. */
  readonly checksum: { readonly kind: 'sha256' | 'git-blob'; readonly value: string };
}

/** All files of a model at one commit. */
export interface Listing {
  readonly commit: string;
  readonly files: readonly HubFile[];
  /** Headers that requests of the files need. */
  readonly headers: Readonly<Record<string, string>>;
  readonly refusal: (status: number) => UserError | undefined;
}

export type ListingOptions = Pick<Patience, 'signal' | 'attempts' | 'retryDelay'>;

const WEIGHTS = /^(model|adapter_model|pytorch_model)[\w.-]*\.(safetensors|bin)(\.index\.json)?$/u;
const TEXTS = /^(?!.*\.index\.json$)[\w.-]+\.(json|txt|jinja)$/u;

/**
 * Of a model's files those that are read: configs, the tokenizer, and the weights in the best form there is. What lies
 * in folders (other exports, checkpoints of the training) is not.
 */
export function wantedFiles(files: readonly HubFile[]): HubFile[] {
  const safe = files.some(({ path }) => WEIGHTS.test(path) && path.endsWith('.safetensors'));
  const isWanted = ({ path }: HubFile): boolean => {
    if (WEIGHTS.test(path)) return safe ? !path.includes('.bin') : true;
    return TEXTS.test(path);
  };
  // A folder without its config is no model: should the download stop, nothing mistakes the folder for one.
  const last = (path: string): number => Number(path === 'config.json' || path === 'adapter_config.json');
  return files.filter(isWanted).sort((a, b) => last(a.path) - last(b.path) || a.bytes - b.bytes);
}
