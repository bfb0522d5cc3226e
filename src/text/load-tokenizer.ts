import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { z } from 'zod';
import { UserError } from '../errors.js';
import { Tokenizer } from './tokenizer.js';
import {
  tokenizerConfigSchema,
  tokenizerJsonSchema,
  type TokenizerConfig,
  type TokenizerJson,
} from './tokenizer-files.js';
import { BERT_CONFIG, wordPieceTokenizer } from './word-piece.js';

/**
 * Reads the tokenizer of a model folder: tokenizer.json, or where there is only a vocab.txt, BERT's WordPiece over it.
 * Special tokens come from tokenizer_config.json, else from special_tokens_map.json.
 *
 * @throws UserError for a missing or broken file.
 */
export async function loadTokenizer(dir: string): Promise<Tokenizer> {
  const config =
    (await readJson(dir, 'tokenizer_config.json', tokenizerConfigSchema)) ??
    (await readJson(dir, 'special_tokens_map.json', tokenizerConfigSchema));
  const json = await readJson(dir, 'tokenizer.json', tokenizerJsonSchema);
  if (json !== undefined) return build(json, config ?? {}, join(dir, 'tokenizer.json'));

  const vocabulary = await readOptional(join(dir, 'vocab.txt'));
  if (vocabulary === undefined) {
    throw new UserError({
      code: 'tokenizer.missing-file',
      message: 'The model folder has no tokenizer.json.',
      where: dir,
      fix: 'Copy tokenizer.json and tokenizer_config.json of the model into it. A BERT-like model may have vocab.txt instead.',
    });
  }
  return buildFromVocabulary(vocabulary, { ...BERT_CONFIG, ...config }, join(dir, 'vocab.txt'));
}

/** The same, or undefined for a folder that has neither file: its model takes token ids only. */
export async function loadTokenizerIfThere(dir: string): Promise<Tokenizer | undefined> {
  for (const name of ['tokenizer.json', 'vocab.txt']) {
    const there = await stat(join(dir, name)).catch(() => undefined);
    if (there !== undefined) return loadTokenizer(dir);
  }
  return undefined;
}

function buildFromVocabulary(vocabulary: string, config: TokenizerConfig, file: string): Tokenizer {
  const tokens = vocabulary.replace(/\r?\n$/u, '').split(/\r?\n/u);
  let json: TokenizerJson;
  try {
    json = wordPieceTokenizer(tokens, config);
  } catch (cause) {
    throw broken(file, cause);
  }
  return build(json, config, file);
}

function build(json: TokenizerJson, config: TokenizerConfig, file: string): Tokenizer {
  try {
    return new Tokenizer(json, config);
  } catch (cause) {
    throw broken(file, cause);
  }
}

async function readJson<Schema extends z.ZodType>(
  dir: string,
  name: string,
  schema: Schema,
): Promise<z.infer<Schema> | undefined> {
  const file = join(dir, name);
  const content = await readOptional(file);
  if (content === undefined) return undefined;
  let value: unknown;
  try {
    value = JSON.parse(content);
  } catch (cause) {
    throw broken(file, cause);
  }
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw broken(file, new Error(`${issue?.path.join('.') ?? ''}: ${issue?.message ?? ''}`));
}

async function readOptional(file: string): Promise<string | undefined> {
  try {
    return await readFile(file, 'utf8');
  } catch (cause) {
    const reason = (cause as NodeJS.ErrnoException).code;
    if (reason === 'ENOENT' || reason === 'ENOTDIR') return undefined;
    throw broken(file, cause);
  }
}

function broken(file: string, cause: unknown): UserError {
  return new UserError({
    code: 'tokenizer.broken-file',
    message: `The tokenizer file cannot be used (${cause instanceof Error ? cause.message : String(cause)}).`,
    where: file,
    fix: 'Copy the file again from where the model comes from.',
    cause,
  });
}
