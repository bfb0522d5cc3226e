import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { UserError } from '../../errors.js';
import type { RewardRow } from '../reward.js';
import { FileReward } from './file-reward.js';

const root = await mkdtemp(join(tmpdir(), 'duanzi-own-reward-'));
afterAll(() => rm(root, { recursive: true }));

const rows = ['猫说天气真好', '包子', ''].map((completion): RewardRow => ({
  prompt: '标题：猫\n',
  completion,
  completionIds: [5, 6, 7],
  finishReason: 'stop',
  template: 'headline',
  words: [],
  fields: { headline: '猫', likes: '12' },
}));

let files = 0;
async function written(source: string, name = `reward${files++}.ts`): Promise<string> {
  const file = join(root, name);
  await writeFile(file, source);
  return file;
}

async function scored(file: string, options: { timeLimit?: number; output?: string[] } = {}): Promise<unknown> {
  const reward = await FileReward.open(file, {
    timeLimit: options.timeLimit ?? 20,
    onOutput: (line) => options.output?.push(line),
  });
  try {
    return await reward.score(rows);
  } finally {
    await reward.close();
  }
}

const failure = async (work: Promise<unknown>): Promise<UserError> => {
  const thrown: unknown = await work.then(
    () => undefined,
    (error: unknown) => error,
  );
  expect(thrown).toBeInstanceOf(UserError);
  return thrown as UserError;
};

describe('a file', () => {
  it.each([
    [
      'in TypeScript',
      'r.ts',
      'export default (rows: { completion: string }[]): number[] => rows.map((r) => r.completion.length);',
    ],
    [
      'in JavaScript',
      'r.mjs',
      'export default function (rows) { return rows.map(({ completion }) => completion.length); }',
    ],
    ['in CommonJS', 'r.cjs', 'module.exports = (rows) => rows.map(({ completion }) => completion.length);'],
    [
      'that waits',
      'w.ts',
      'export default async (rows: any) => { await new Promise((r) => setTimeout(r, 20)); return rows.map((r: any) => r.completion.length); };',
    ],
    [
      'that gives a typed array',
      't.ts',
      'export default (rows: any) => Float32Array.from(rows, (r: any) => r.completion.length);',
    ],
    ['of our own output name', 'reward.mjs', 'export default (rows) => rows.map((r) => r.completion.length);'],
  ])('%s is run', async (_, name, source) => {
    expect(await scored(await written(source, name))).toEqual([6, 2, 0]);
  });

  it('gets whole rows and says null where it does not apply', async () => {
    const file = await written(`
      export default (rows) => rows.map((row) =>
        row.completion === '' ? null : Number(row.fields.likes) + row.completionIds.length + (row.finishReason === 'stop' ? 100 : 0));`);
    expect(await scored(file)).toEqual([115, 115, null]);
  });

  it('may import its own files and packages, and read what lies beside it', async () => {
    await mkdir(join(root, 'node_modules/puns'), { recursive: true });
    await writeFile(join(root, 'node_modules/puns/package.json'), '{"name":"puns","main":"index.js"}');
    await writeFile(
      join(root, 'node_modules/puns/index.js'),
      'const path = require("path"); exports.pun = () => path.sep.length;',
    );
    await written('export const two = 2;', 'two.ts');
    await written('3', 'three.txt');
    const file = await written(`
      import { readFileSync } from 'node:fs';
      import { pun } from 'puns';
      import { two } from './two.js';
      const three = Number(readFileSync(new URL('./three.txt', import.meta.url), 'utf8'));
      export default (rows: unknown[]) => rows.map(() => pun() + two + three);`);
    expect(await scored(file)).toEqual([6, 6, 6]);
  });

  it('of docs/rewards.md rewards as it says', async () => {
    const page = await readFile(new URL('../../../docs/rewards.md', import.meta.url), 'utf8');
    const [, source = ''] = /^```ts\n(.*?)^```$/msu.exec(page)!;
    expect(await scored(await written(source))).toEqual([1, 0, 0]);
  });

  it('says what it prints, and not on stdout', async () => {
    const output: string[] = [];
    await scored(await written('export default (rows) => { console.log("looked"); return rows.map(() => 1); };'), {
      output,
    });
    await expect.poll(() => output).toEqual(['looked']);
  });

  it('is identified by its content and that of what it imports', async () => {
    await written('export const n = 1;', 'n.ts');
    const file = await written("import { n } from './n.js'; export default (rows) => rows.map(() => n);");
    const sha = async (): Promise<string> => {
      const reward = await FileReward.open(file, { timeLimit: 20 });
      await reward.close();
      return reward.sha256;
    };
    const before = await sha();
    expect(await sha()).toBe(before);
    await written('export const n = 2;', 'n.ts');
    expect(await sha()).not.toBe(before);
  });

  it('leaves nothing behind', async () => {
    const temporary = join(root, 'temporary');
    await mkdir(temporary);
    const before = process.env['TMPDIR'];
    process.env['TMPDIR'] = temporary;
    try {
      await scored(await written('export default (rows) => rows.map(() => 1);'));
      await failure(scored(await written('throw new Error("no");')));
    } finally {
      if (before === undefined) delete process.env['TMPDIR'];
      else process.env['TMPDIR'] = before;
    }
    expect(await readdir(temporary)).toEqual([]);
  });
});

describe('is the user’s own error, with its place:', () => {
  it('thrown at work', async () => {
    const file = await written(`type Row = { completion: string };

const inner = (row: Row): number => {
  const x = undefined as unknown as Row;
  return x.completion.length + row.completion.length;
};
export default (rows: Row[]): number[] => rows.map((row) => inner(row));
`);
    const error = await failure(scored(file));
    expect(error).toMatchObject({ code: 'reward.threw', exitCode: 2, where: `${file}:5:12` });
    expect(error.message).toMatch(
      /^The reward threw TypeError: Cannot read properties of undefined \(reading 'completion'\)/,
    );
    expect(error.fix).toMatch(/--resume/);
  });

  it('thrown later, by nobody’s promise', async () => {
    const file = await written(`export default (rows) => new Promise(() => {
  setTimeout(() => { throw new RangeError('too late'); }, 5);
});`);
    expect(await failure(scored(file))).toMatchObject({
      code: 'reward.threw',
      where: `${file}:2:28`,
      message: 'The reward threw RangeError: too late',
    });
  });

  it('thrown in a file that it imports', async () => {
    const helper = await written('\nexport const help = (): number => { throw new Error("no help"); };', 'helper.ts');
    const file = await written("import { help } from './helper.js';\nexport default (rows) => rows.map(help);");
    expect(await failure(scored(file))).toMatchObject({ where: `${helper}:2:43` });
  });

  it('thrown while it loads', async () => {
    const file = await written('\n\nthrow new Error("not today");\nexport default () => [];');
    expect(await failure(scored(file))).toMatchObject({ code: 'reward.threw', where: `${file}:3:7` });
  });

  it('a syntax error', async () => {
    const file = await written('export default (rows => rows;\n');
    expect(await failure(scored(file))).toMatchObject({ code: 'reward.syntax', where: `${file}:1:29` });
  });

  it('an import that is not there', async () => {
    const file = await written("import { x } from 'no-such-package';\nexport default () => [x];");
    const error = await failure(scored(file));
    expect(error).toMatchObject({ code: 'reward.syntax', where: `${file}:1:19` });
    expect(error.message).toMatch(/no-such-package/);
  });
});

describe('is refused:', () => {
  it.each([
    ['too few numbers', 'rows.slice(1).map(() => 1)', /^The reward returned 2 scores for 3 rows\.$/],
    ['too many', '[1, 2, 3, 4]', /returned 4 scores for 3 rows/],
    ['NaN', '[1, NaN, 2]', /returned NaN for row 1 of 3/],
    ['an infinity', '[1, 2, -Infinity]', /returned -Infinity for row 2 of 3/],
    ['texts', 'rows.map(() => "3")', /returned "3" for row 0 of 3/],
    ['undefined', 'rows.map(() => undefined)', /returned undefined for row 0 of 3/],
    ['holes', '[1, , 2]', /returned undefined for row 1 of 3/],
    ['one number', '1', /returned 1, where a list of 3 numbers is due/],
    ['nothing', 'undefined', /returned undefined, where a list/],
    ['functions', 'rows.map(() => () => 1)', /returned a function for row 0/],
    ['objects', '[{}, [], 1]', /returned an object for row 0/],
  ])('%s', async (_, expression, message) => {
    const file = await written(`export default (rows) => ${expression};`);
    const error = await failure(scored(file));
    expect(error).toMatchObject({ code: 'reward.fault', where: file, exitCode: 2 });
    expect(error.message).toMatch(message);
  });

  it.each([
    ['an endless loop', 'export default () => { for (;;); };'],
    ['a promise that is never kept', 'export default () => new Promise(() => {});'],
    ['an endless loop while it loads', 'for (;;);\nexport default () => [];'],
  ])('%s, at the time limit', async (_, source) => {
    const error = await failure(scored(await written(source), { timeLimit: 1 }));
    expect(error.code).toBe('reward.time-limit');
    expect(error.message).toMatch(/within 1 s, and was ended/);
  });

  it('a thread that ends itself', async () => {
    const error = await failure(scored(await written('export default () => process.exit(0);')));
    expect(error).toMatchObject({ code: 'reward.fault', message: 'The reward ended its thread.' });
  });

  it('no function', async () => {
    const none = await failure(scored(await written('export const reward = 1;')));
    expect(none.message).toBe('The reward has no default export.');
    const number = await failure(scored(await written('export default 1;')));
    expect(number.message).toBe('The reward has a default export that is no function.');
  });

  it('no file', async () => {
    expect(await failure(scored(join(root, 'nowhere.ts')))).toMatchObject({ code: 'reward.missing' });
    expect((await failure(scored(root))).message).toMatch(/a folder/);
  });
});
