/** A model on a server, as people write it: `ORG/NAME`, `modelscope:ORG/NAME`, each also with `@REVISION`. */
export interface ModelId {
  readonly source: 'huggingface' | 'modelscope';
  readonly name: string;
  /** Branch, tag or commit; the server's default branch where absent. */
  readonly revision: string | undefined;
}

const PREFIXES = { 'hf:': 'huggingface', 'modelscope:': 'modelscope' } as const;
const ID = /^(hf:|modelscope:)?([\w-][\w.-]*\/[\w-][\w.-]*)(?:@([\w./-]+))?$/u;

/** What a text names if it is a model id; undefined for anything else, a path such as `./a/b` or `a/b/c` among it. */
export function parseModelId(text: string): ModelId | undefined {
  const match = ID.exec(text);
  if (match === null) return undefined;
  const [, prefix = 'hf:', name, revision] = match;
  return { source: PREFIXES[prefix as keyof typeof PREFIXES], name: name!, revision };
}
