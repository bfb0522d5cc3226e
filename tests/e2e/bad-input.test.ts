import { cp, mkdir, mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { contentOf } from '../support/folder-content.js';
import { miniRows, writeMiniEncoder, writeMiniPolicy } from '../support/mini-humor.js';
import { spawnCli, type Finished } from './spawn-cli.js';

const cwd = await mkdtemp(join(tmpdir(), 'duanzi-bad-input-'));
const at = (name: string): string => join(cwd, name);
afterAll(() => rm(cwd, { recursive: true }));

interface Fault {
  readonly name: string;
  /** Content of `rows.csv`, for faults of the data. */
  readonly rows?: string | Uint8Array;
  readonly argv?: readonly string[];
  readonly says: RegExp;
  /** File, and line or row where there is one. */
  readonly where: RegExp;
  readonly fix: RegExp;
}

const HEADER = 'headline,word1,word2,joke,label';
const GOOD = Array.from({ length: 20 }, (_, i) => `标题${i},甲,乙,第${i}个笑话,${i % 2}`);
/** A file whose fourth line is `line`. */
const withLine = (line: string): string => [HEADER, ...GOOD.slice(0, 2), line, ...GOOD.slice(2)].join('\n');
const gb18030 = (text: string): Uint8Array =>
  // 标题 in GB18030; the rest is ASCII.
  Buffer.from(text.replaceAll('标题', '\u00b1\u00ea\u00cc\u00e2'), 'latin1');

const SFT = ['sft', '--model', 'policy'];
const RM = ['rm', '--model', 'encoder'];
const GRPO = ['grpo', '--model', 'policy', '--rm', 'judge'];
const good = ['--set', 'data.file=good.csv'];
const long = `长长的标题${'很长'.repeat(300)},甲,乙,笑话,1`;

const FAULTS: readonly Fault[] = [
  {
    name: 'a missing column',
    rows: `headline,word1,word2\n标题,甲,乙\n`,
    says: /no column "joke"; it has "headline", "word1", "word2"/,
    where: /rows\.csv:1$/,
    fix: /data\.columns\.completion/,
  },
  {
    name: 'a misspelt column',
    rows: `hedline,word1,word2,joke\n标题,甲,乙,笑话\n`,
    says: /data\.templates\.headline asks for \{headline\}, and the data has no such column/,
    where: /rows\.csv:1$/,
    fix: /Did you mean "hedline"\?/,
  },
  { name: 'an empty file', rows: '', says: /is empty/, where: /rows\.csv$/, fix: /at least one row/ },
  {
    name: 'a wrong encoding',
    rows: gb18030(`${HEADER}\n标题,a,b,joke,1\n`),
    says: /not UTF-8; its bytes read as GB18030/,
    where: /rows\.csv:2$/,
    fix: /iconv -f GB18030/,
  },
  {
    name: 'a control character',
    rows: withLine('标题,甲,乙,笑\u0007话,1'),
    says: /control character U\+0007/,
    where: /rows\.csv:4$/,
    fix: /Remove it/,
  },
  {
    name: 'an unclosed quote',
    rows: withLine('标题,甲,乙,"笑话,1'),
    says: /nothing closes it/,
    where: /rows\.csv:4$/,
    fix: /Close it/,
  },
  {
    name: 'an empty joke',
    rows: withLine('标题,甲,乙, ,1'),
    says: /"joke" is empty in this row/,
    where: /rows\.csv:4$/,
    fix: /Fill it in or remove the row/,
  },
  {
    name: 'a label that is not 0 or 1',
    rows: withLine('标题,甲,乙,笑话,yes'),
    argv: RM,
    says: /"label" holds "yes", which is neither 0 nor 1/,
    where: /rows\.csv:4$/,
    fix: /Write 1 for a humorous text/,
  },
  {
    name: 'a prompt longer than a sample may be',
    rows: withLine(long),
    argv: [...SFT, '--set', 'data.validationFraction=0'],
    says: /The prompt has \d+ tokens and leaves no room/,
    where: /rows\.csv:4$/,
    fix: /Shorten it, remove the row, or raise/,
  },
  {
    name: 'a reward file that is not there',
    argv: ['grpo', '--model', 'policy', '--reward', 'nowhere.ts', ...good],
    says: /The reward file cannot be read/,
    where: /nowhere\.ts$/,
    fix: /docs\/rewards\.md shows one/,
  },
  {
    name: 'a prompt longer than grpo allows',
    rows: withLine(long),
    argv: [...GRPO, '--set', 'data.validationFraction=0', '--set', 'grpo.completionsPerRollout=16'],
    says: /The prompt has \d+ tokens; the limit is 256/,
    where: /rows\.csv:4$/,
    fix: /raise grpo\.maxPromptLength/,
  },
  {
    name: 'truncated weights',
    argv: ['sft', '--model', 'truncated', ...good],
    says: /not a whole \.safetensors file: tensor `.+` lies at bytes \d+ to \d+ of a data part of \d+/,
    where: /truncated\/model\.safetensors$/,
    fix: /download the file again/,
  },
  {
    name: 'weights whose header lies',
    argv: ['sft', '--model', 'lying', ...good],
    says: /tensor `.+`, F32 of shape \(64, 64\), needs 16384 bytes but has 8192/,
    where: /lying\/model\.safetensors$/,
    fix: /download the file again/,
  },
  {
    name: 'a tokenizer that does not fit its model',
    argv: ['rm', '--model', 'mismatched', ...good],
    says: /does not fit the model: its ids go up to \d+, and the model has \d+ embeddings/,
    where: /mismatched$/,
    fix: /belong to this model/,
  },
  {
    name: 'an unknown key',
    argv: [...SFT, ...good, '--set', 'sft.learningrate=1'],
    says: /sft\.learningrate is not a known key/,
    where: /--set sft\.learningrate/,
    fix: /Did you mean sft\.learningRate\?/,
  },
  {
    name: 'an output folder below a file',
    argv: [...SFT, ...good, '--out', 'good.csv/out'],
    says: /Cannot write/,
    where: /good\.csv\/out/,
    fix: /Choose a folder you may write to/,
  },
  {
    name: 'an output folder that is not empty',
    argv: [...SFT, ...good, '--out', 'full'],
    says: /not empty; nothing was overwritten/,
    where: /full$/,
    fix: /Choose another --out/,
  },
];

async function writeModels(): Promise<void> {
  const rows = miniRows(10);
  await writeMiniPolicy(at('policy'), rows);
  await writeMiniEncoder(at('encoder'), rows, 'masked');
  await writeMiniEncoder(at('judge'), rows, 'classifier');
  for (const name of ['truncated', 'lying']) await cp(at('policy'), at(name), { recursive: true });
  const weights = await readFile(at('policy/model.safetensors'));
  await truncate(at('truncated/model.safetensors'), weights.length - 1000);
  // The header claims twice the rows that its offsets hold; a space keeps its length.
  const headerLength = Number(weights.readBigUInt64LE());
  const header = weights.toString('utf8', 8, 8 + headerLength);
  const lie = header.replace('"shape":[32,64]', '"shape":[64,64]');
  expect(lie).not.toBe(header);
  await writeFile(
    at('lying/model.safetensors'),
    Buffer.concat([weights.subarray(0, 8), Buffer.from(lie), weights.subarray(8 + headerLength)]),
  );
  await cp(at('encoder'), at('mismatched'), { recursive: true });
  const others = miniRows(300);
  await writeMiniEncoder(at('large'), others, 'masked');
  await cp(at('large/tokenizer.json'), at('mismatched/tokenizer.json'));
}

const finished = new Map<string, Finished>();
let before: unknown;

/** All commands, two at a time: each is a process of its own that takes its time to start. */
beforeAll(async () => {
  await writeModels();
  await writeFile(at('good.csv'), [HEADER, ...GOOD].join('\n'));
  await mkdir(at('full'));
  await writeFile(at('full/thesis.txt'), 'mine');
  const commands = await Promise.all(
    FAULTS.map(async ({ name, rows, argv = SFT }, i) => {
      const out = argv.includes('--out') ? [] : ['--out', `out-${i}`];
      if (rows === undefined) return { name, argv: [...argv, ...out] };
      await mkdir(at(`data-${i}`));
      await writeFile(at(`data-${i}/rows.csv`), rows);
      return { name, argv: [...argv, ...out, '--set', `data.file=data-${i}/rows.csv`] };
    }),
  );
  before = await contentOf(cwd);
  const lane = async (): Promise<void> => {
    for (let next = commands.shift(); next !== undefined; next = commands.shift()) {
      finished.set(next.name, await spawnCli(next.argv, { cwd }));
    }
  };
  await Promise.all([lane(), lane()]);
}, 300_000);

it.each(FAULTS)(
  '$name: exit code 2 and one message with what, where and how to mend it',
  ({ name, says, where, fix }) => {
    const { code, stdout, stderr } = finished.get(name)!;
    const parts = /^Error: (.+)\n {2}Where: (.+)\n {2}Fix: {3}(.+)\n$/u.exec(stderr);
    expect(parts, stderr).not.toBeNull();
    expect(parts![1]).toMatch(says);
    expect(parts![2]).toMatch(where);
    expect(parts![3]).toMatch(fix);
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
  },
);

it('none of it wrote, changed or removed anything', async () => {
  expect(await contentOf(cwd)).toEqual(before);
});
