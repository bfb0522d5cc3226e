/** The files of a model folder that make its tokenizer, its chat template among them. */
export const TOKENIZER_FILES: ReadonlySet<string> = new Set([
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'added_tokens.json',
  'chat_template.jinja',
  'vocab.txt',
  'vocab.json',
  'merges.txt',
]);
