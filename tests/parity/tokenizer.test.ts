/**
 * Encodings recorded from Hugging Face's tokenizers, and prompt + completion as TRL's SFTTrainer prepares them.
 * Every recorded case, exactly. Offsets are not compared: nothing here uses them.
 */
import { readFileSync } from 'node:fs';
import { copyFile, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { UserError } from '../../src/errors.js';
import { collateTexts } from '../../src/text/collate.js';
import { encodePair } from '../../src/text/encode-pair.js';
import { loadTokenizer } from '../../src/text/load-tokenizer.js';
import type { Tokenizer } from '../../src/text/tokenizer.js';

const FOLDER = fileURLToPath(new URL('../fixtures/golden/tokenizer/', import.meta.url));

function read(path: string): unknown {
  return JSON.parse(readFileSync(FOLDER + path, 'utf8'));
}

interface Case {
  text: string;
  ids: number[];
  tokens: string[];
  decoded: string;
  decoded_skip_special: string;
}

interface BpeRecord {
  vocab_size: number;
  cases: Case[];
  partial_decoding: { text: string; ids: number[]; decoded_prefixes: string[]; decoded_each: string[] }[];
  padded: { texts: string[]; right: number[][]; attention_mask: number[][] };
}

interface WordPieceRecord {
  vocab_size: number;
  cases: Case[];
  pairs: PairCase[];
  truncated_padded: { text: string; max_length: number; ids: number[]; attention_mask: number[] }[];
}

interface PairCase {
  a: string;
  b: string;
  max_length: number | null;
  ids: number[];
  type_ids: number[];
  attention_mask: number[];
  tokens: string[];
}

interface BoundaryCase {
  prompt: string;
  completion: string;
  max_length: number;
  prompt_ids: number[];
  input_ids: number[];
  labels: number[];
  dropped?: boolean;
}

const bpe = await loadTokenizer(`${FOLDER}bpe`);
const wordPiece = await loadTokenizer(`${FOLDER}wordpiece`);
const bpeRecord = read('bpe/encodings.json') as BpeRecord;
const wordPieceRecord = read('wordpiece/encodings.json') as WordPieceRecord;

const tokensOf = (tokenizer: Tokenizer, ids: readonly number[]) => ids.map((id) => tokenizer.tokenOf(id));

describe.each([
  { name: 'byte-level BPE', tokenizer: bpe, record: bpeRecord },
  { name: 'WordPiece', tokenizer: wordPiece, record: wordPieceRecord },
])('$name', ({ tokenizer, record }) => {
  it('has the recorded vocabulary size', () => {
    expect(tokenizer.vocabSize).toBe(record.vocab_size);
  });

  it.each(record.cases)('encodes and decodes $text', ({ text, ids, tokens, decoded, decoded_skip_special }) => {
    expect(tokenizer.encode(text)).toEqual(ids);
    expect(tokensOf(tokenizer, ids)).toEqual(tokens);
    expect(tokens.map((token) => tokenizer.idOf(token))).toEqual(ids);
    expect(tokenizer.decode(ids)).toBe(decoded);
    expect(tokenizer.decode(ids, { skipSpecialTokens: true })).toBe(decoded_skip_special);
  });
});

describe('byte-level BPE', () => {
  it.each(bpeRecord.partial_decoding)('decodes parts of $text', ({ text, ids, decoded_prefixes, decoded_each }) => {
    expect(bpe.encode(text)).toEqual(ids);
    expect(decoded_prefixes.map((_, length) => bpe.decode(ids.slice(0, length)))).toEqual(decoded_prefixes);
    expect(ids.map((id) => bpe.decode([id]))).toEqual(decoded_each);
  });

  it('pads on the right', () => {
    const { texts, right, attention_mask } = bpeRecord.padded;
    const batch = collateTexts(
      texts.map((text) => bpe.encode(text)),
      { padId: bpe.requireSpecial('pad', FOLDER) },
    );
    expect([...batch.inputIds]).toEqual(right.flat());
    expect([...batch.attentionMask]).toEqual(attention_mask.flat());
    expect([batch.batch, batch.length]).toEqual([3, 10]);
  });
});

describe('WordPiece', () => {
  const padId = wordPiece.requireSpecial('pad', FOLDER);

  it.each(wordPieceRecord.pairs)('encodes $a with $b within $max_length', (recorded) => {
    const { a, b, max_length, ids, type_ids, attention_mask, tokens } = recorded;
    const pair = wordPiece.encodeTwo(a, b, max_length === null ? {} : { maxLength: max_length });
    const batch = collateTexts([pair.ids], { padId, ...(max_length !== null && { padTo: max_length }) });
    expect([...batch.inputIds]).toEqual(ids);
    expect([...batch.attentionMask]).toEqual(attention_mask);
    expect([...pair.typeIds, ...Array<number>(batch.length - pair.ids.length).fill(0)]).toEqual(type_ids);
    expect(tokensOf(wordPiece, ids)).toEqual(tokens);
  });

  it.each(wordPieceRecord.truncated_padded)('cuts or pads $text to $max_length', (recorded) => {
    const { text, max_length, ids, attention_mask } = recorded;
    const batch = collateTexts([wordPiece.encode(text, { maxLength: max_length })], { padId, padTo: max_length });
    expect([...batch.inputIds]).toEqual(ids);
    expect([...batch.attentionMask]).toEqual(attention_mask);
  });

  it('reads the same from vocab.txt alone', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'duanzi-vocab-'));
    await copyFile(join(FOLDER, 'wordpiece', 'vocab.txt'), join(dir, 'vocab.txt'));
    const fromVocabulary = await loadTokenizer(dir);
    await rm(dir, { recursive: true });
    for (const { text, ids } of wordPieceRecord.cases) expect(fromVocabulary.encode(text)).toEqual(ids);
    expect(fromVocabulary.special).toEqual(wordPiece.special);
  });
});

describe('prompt and completion', () => {
  const { eos_token, cases } = read('bpe/trl_boundary.json') as { eos_token: string; cases: BoundaryCase[] };
  const eosId = bpe.idOf(eos_token)!;
  const encode = ({ prompt, completion, max_length }: BoundaryCase) =>
    encodePair(bpe, prompt, completion, { eosId, maxLength: max_length });
  const whole = cases.filter(({ dropped, input_ids }) => dropped !== true && input_ids.at(-1) === eosId);
  const cut = cases.filter(({ dropped, input_ids }) => dropped !== true && input_ids.at(-1) !== eosId);
  const dropped = cases.filter((recorded) => recorded.dropped === true);

  it('of the record are all looked at', () => {
    expect([whole.length, cut.length, dropped.length]).toEqual([28, 4, 2]);
  });

  it.each(whole)('as TRL: $prompt|$completion within $max_length', (recorded) => {
    const { inputIds, completionMask, truncated } = encode(recorded);
    expect(bpe.encode(recorded.prompt)).toEqual(recorded.prompt_ids);
    expect(inputIds).toEqual(recorded.input_ids);
    expect(inputIds.map((id, i) => (completionMask[i] === 1 ? id : -100))).toEqual(recorded.labels);
    expect(truncated).toBe(false);
  });

  // Departures from TRL: where it cuts EOS off, we cut the completion instead; where no token of the completion would
  // be left to learn, or TRL drops the row in silence, the prompt is refused.
  const roomForCompletion = ({ labels, max_length }: BoundaryCase) => labels[max_length - 2] !== -100;

  it.each(cut.filter(roomForCompletion))('unlike TRL, EOS is kept: $prompt|$completion', (recorded) => {
    const { inputIds, completionMask, truncated } = encode(recorded);
    expect(inputIds).toEqual([...recorded.input_ids.slice(0, -1), eosId]);
    expect(completionMask).toEqual(recorded.labels.map((label) => (label === -100 ? 0 : 1)));
    expect(truncated).toBe(true);
  });

  it.each([...dropped, ...cut.filter((recorded) => !roomForCompletion(recorded))])(
    'unlike TRL, too long a prompt is refused: $prompt|$completion',
    (recorded) => {
      expect(() => encode(recorded)).toThrow(UserError);
      expect(() => encode(recorded)).toThrow(/leaves no room/u);
    },
  );
});
