import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parse } from 'csv-parse/sync';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';

const jokeRow = z.strictObject({
  headline: z.string(),
  word1: z.string(),
  word2: z.string(),
  joke: z.string(),
});
const labelledRow = jokeRow.extend({ label: z.enum(['0', '1']) });

type JokeRow = z.infer<typeof jokeRow>;
type LabelledRow = z.infer<typeof labelledRow>;

const FILES = ['sft_train.csv', 'rm_train.csv', 'rm_test.csv'] as const;

function read(file: (typeof FILES)[number]): string {
  const bytes = readFileSync(fileURLToPath(new URL(`../../assets/mini-humor/${file}`, import.meta.url)));
  return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
}

function rowsOf<T>(file: (typeof FILES)[number], schema: z.ZodType<T>): T[] {
  return z.array(schema).parse(parse(read(file), { columns: true }));
}

const sftTrain = rowsOf('sft_train.csv', jokeRow);
const rmTrain = rowsOf('rm_train.csv', labelledRow);
const rmTest = rowsOf('rm_test.csv', labelledRow);
const everyText = [...rmTrain, ...rmTest];

const withLabel = (rows: LabelledRow[], label: '0' | '1'): LabelledRow[] => rows.filter((row) => row.label === label);
const characters = (text: string): number => Array.from(text).length;
const lengths = (rows: JokeRow[]): number[] => rows.map((row) => characters(row.joke)).sort((a, b) => a - b);
const mean = (values: number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;
const median = (sorted: number[]): number => sorted[Math.floor(sorted.length / 2)]!;
const distinct = (values: string[]): number => new Set(values).size;

function trigrams(text: string): Set<string> {
  const symbols = Array.from(text);
  return new Set(symbols.slice(2).map((_, start) => symbols.slice(start, start + 3).join('')));
}

function jaccard(a: Set<string>, b: Set<string>): number {
  let shared = 0;
  for (const gram of a) if (b.has(gram)) shared++;
  return shared / (a.size + b.size - shared);
}

/** Probability that a random joke scores above a random control; 0.5 says the score tells nothing. */
function separation(rows: LabelledRow[], score: (row: LabelledRow) => number): number {
  const jokes = withLabel(rows, '1').map(score);
  const controls = withLabel(rows, '0').map(score);
  const wins = jokes.flatMap((joke) => controls.map((control) => (joke > control ? 1 : joke === control ? 0.5 : 0)));
  return mean(wins);
}

describe('mini-humor files', () => {
  it.each(FILES)('%s is UTF-8 without BOM, with LF line ends and no control characters', (file) => {
    const text = read(file);
    expect(text.endsWith('\n')).toBe(true);
    expect(text.replaceAll('\n', '')).not.toMatch(/[\p{Cc}\p{Cf}\uFFFD]/u);
  });

  it('has the published columns in their order', () => {
    const header = (file: (typeof FILES)[number]): string => read(file).split('\n', 1)[0]!;
    expect(header('sft_train.csv')).toBe('headline,word1,word2,joke');
    expect(header('rm_train.csv')).toBe('headline,word1,word2,joke,label');
    expect(header('rm_test.csv')).toBe('headline,word1,word2,joke,label');
  });

  it('has the counts its README states', () => {
    expect(sftTrain).toHaveLength(280);
    expect(withLabel(rmTrain, '1')).toHaveLength(280);
    expect(withLabel(rmTrain, '0')).toHaveLength(280);
    expect(withLabel(rmTest, '1')).toHaveLength(30);
    expect(withLabel(rmTest, '0')).toHaveLength(30);
  });
});

describe('mini-humor rows', () => {
  it('have no empty or padded cell, and lengths within the stated bounds', () => {
    for (const row of [...sftTrain, ...everyText]) {
      for (const cell of Object.values(row)) expect(cell).toMatch(/^\S+$/u);
      expect(characters(row.headline), row.headline).toBeGreaterThanOrEqual(8);
      expect(characters(row.headline), row.headline).toBeLessThanOrEqual(20);
      expect(characters(row.joke), row.joke).toBeGreaterThanOrEqual(15);
      expect(characters(row.joke), row.joke).toBeLessThanOrEqual(80);
    }
  });

  it('name two different words that both occur in the text', () => {
    for (const row of [...sftTrain, ...everyText]) {
      expect(row.word1).not.toBe(row.word2);
      expect(row.joke).toContain(row.word1);
      expect(row.joke).toContain(row.word2);
    }
  });

  it('are unique in text, and in headline within a class', () => {
    expect(distinct(everyText.map((row) => row.joke))).toBe(everyText.length);
    for (const label of ['0', '1'] as const) {
      const rows = withLabel(everyText, label);
      expect(distinct(rows.map((row) => row.headline))).toBe(rows.length);
    }
  });

  it('contain no near duplicates', () => {
    const grams = everyText.map((row) => trigrams(row.joke));
    const nearDuplicates = everyText.flatMap((row, i) =>
      everyText
        .slice(i + 1)
        .filter((_, offset) => jaccard(grams[i]!, grams[i + 1 + offset]!) >= 0.6)
        .map((other) => [row.joke, other.joke]),
    );
    expect(nearDuplicates).toEqual([]);
  });

  it('of the test file share no headline, word pair or text with the training files', () => {
    const words = (row: JokeRow): string => `${row.word1}、${row.word2}`;
    for (const key of [(row: JokeRow) => row.headline, (row: JokeRow) => row.joke, words]) {
      const trained = new Set([...sftTrain, ...rmTrain].map(key));
      expect(rmTest.map(key).filter((value) => trained.has(value))).toEqual([]);
    }
  });
});

describe('mini-humor labels', () => {
  it('mark exactly the SFT jokes as humorous', () => {
    const key = (row: JokeRow): string => [row.headline, row.word1, row.word2, row.joke].join('\n');
    expect(withLabel(rmTrain, '1').map(key).sort()).toEqual(sftTrain.map(key).sort());
  });

  it.each([
    ['rm_train.csv', rmTrain],
    ['rm_test.csv', rmTest],
  ])('cannot be told from the prompt: %s has each prompt once per class', (_, rows) => {
    const prompt = (row: JokeRow): string => [row.headline, row.word1, row.word2].join('\n');
    const jokes = withLabel(rows, '1').map(prompt).sort();
    expect(withLabel(rows, '0').map(prompt).sort()).toEqual(jokes);
    expect(distinct(jokes)).toBe(jokes.length);
  });

  it.each([
    ['rm_train.csv', rmTrain],
    ['rm_test.csv', rmTest],
  ])('cannot be told from the length: %s', (_, rows) => {
    const jokes = lengths(withLabel(rows, '1'));
    const controls = lengths(withLabel(rows, '0'));
    expect(Math.abs(mean(jokes) - mean(controls))).toBeLessThan(2);
    expect(Math.abs(median(jokes) - median(controls))).toBeLessThan(2);
    expect(Math.abs(separation(rows, (row) => characters(row.joke)) - 0.5)).toBeLessThan(0.03);
  });

  it.each(['：', '“', '？', '！', '，', '、', '《'])('cannot be told from the punctuation: %s', (mark) => {
    const occurrences = (row: JokeRow): number => row.joke.split(mark).length - 1;
    expect(Math.abs(separation(everyText, occurrences) - 0.5)).toBeLessThan(0.03);
  });
});
