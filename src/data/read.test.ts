import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { UserError } from '../errors.js';
import { readRows, type ReadOptions } from './read.js';

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'duanzi-read-'));
});
afterAll(async () => {
  await rm(dir, { recursive: true });
});

async function write(content: string | Uint8Array, name = 'data.csv'): Promise<string> {
  const file = join(dir, name);
  await writeFile(file, content);
  return file;
}

async function fault(content: string | Uint8Array, options: ReadOptions = {}, name = 'data.csv'): Promise<UserError> {
  const file = await write(content, name);
  const error: unknown = await readRows(file, options).then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(UserError);
  const userError = error as UserError;
  expect(userError.exitCode).toBe(2);
  expect(userError.fix).toBeTruthy();
  return userError;
}

const at = (line: number, name = 'data.csv'): string => `${join(dir, name)}:${line}`;

describe('a CSV file', () => {
  it('is read with or without byte order mark, with quoting, and with line breaks inside fields', async () => {
    const text = 'headline,word1,word2,joke,label\n猫,a,b,"他说：""好""，\n走了",1\n\n狗,c,d,不错,0\n';
    for (const content of [text, `\ufeff${text}`, text.replaceAll('\n', '\r\n'), text.replaceAll('\n', '\r')]) {
      const { rows, columns } = await readRows(await write(content), { labels: 'required' });
      expect(columns).toEqual(['headline', 'word1', 'word2', 'joke', 'label', 'completion']);
      expect(rows.map(({ line }) => line)).toEqual([2, 5]);
      expect(rows.map(({ label }) => label)).toEqual([1, 0]);
      expect(rows[0]?.fields['joke']).toBe('他说："好"，\n走了');
      expect(rows[0]?.fields['completion']).toBe('他说："好"，\n走了');
    }
  });

  it('may name its columns otherwise; templates then find them under both names', async () => {
    const file = await write('title,text,funny\n猫,好笑,1\n');
    const { rows, columns } = await readRows(file, {
      columns: { headline: 'title', completion: 'text', label: 'funny' },
    });
    expect(columns).toEqual(['title', 'text', 'funny', 'headline', 'completion', 'label']);
    expect(rows[0]).toEqual({
      file,
      line: 2,
      label: 1,
      fields: { title: '猫', text: '好笑', funny: '1', headline: '猫', completion: '好笑', label: '1' },
    });
  });

  it('gives back whatever was written into it', async () => {
    const value = fc.string({ unit: fc.constantFrom('猫', '"', ',', '\n', ' ', 'a', '😂', "'"), minLength: 0 });
    const quote = (text: string): string => `"${text.replaceAll('"', '""')}"`;
    await fc.assert(
      fc.asyncProperty(fc.array(fc.tuple(value, value), { minLength: 1, maxLength: 8 }), async (pairs) => {
        const rows = pairs.map(([headline, joke]) => ({ headline, joke: `${joke}笑` }));
        const lines = rows.map(({ headline, joke }) => `${quote(headline)},${quote(joke)}\n`);
        const table = await readRows(await write(`headline,joke\n${lines.join('')}`));
        expect(table.rows.map(({ fields }) => ({ headline: fields['headline'], joke: fields['joke'] }))).toEqual(rows);
        const starts = lines.map((_, i) => lines.slice(0, i).join('').split('\n').length + 1);
        expect(table.rows.map(({ line }) => line)).toEqual(starts);
      }),
      { numRuns: 50 },
    );
  });

  it('of 20,000 rows is read quickly', async () => {
    const file = await write(
      `headline,joke\n${Array.from({ length: 20_000 }, (_, i) => `标题${i},笑话${i}`).join('\n')}\n`,
    );
    const start = performance.now();
    expect((await readRows(file)).rows).toHaveLength(20_000);
    expect(performance.now() - start).toBeLessThan(10_000);
  });
});

describe('a JSON Lines file', () => {
  it('is read with texts, numbers and empty values', async () => {
    const file = await write(
      '{"headline":"猫","joke":"好笑","label":1}\n\n{"headline":null,"joke":"不","label":"0"}\n',
      'a.jsonl',
    );
    const { rows } = await readRows(file, { labels: 'required' });
    expect(rows.map(({ line, label, fields }) => ({ line, label, headline: fields['headline'] }))).toEqual([
      { line: 1, label: 1, headline: '猫' },
      { line: 3, label: 0, headline: '' },
    ]);
  });

  it.each([
    ['{"joke":"好"}\n{"joke":\n', 'data.invalid-json', 2],
    ['["好"]\n', 'data.invalid-json', 1],
    ['{"joke":"好"}\n{"joke":["好"]}\n', 'data.invalid-value', 2],
    ['{"joke":"好"}\n{"text":"好"}\n', 'data.empty-completion', 2],
    ['{"jok":"好"}\n', 'data.missing-column', 1],
  ])('%j is refused as %s', async (content, code, line) => {
    const error = await fault(content, {}, 'bad.jsonl');
    expect(error).toMatchObject({ code, where: at(line, 'bad.jsonl') });
  });
});

describe('bad input', () => {
  it('of a misspelt column names the nearest one', async () => {
    const error = await fault('headline,jokes\n猫,好笑\n');
    expect(error).toMatchObject({ code: 'data.missing-column', where: at(1) });
    expect(error.message).toContain('"joke"');
    expect(error.fix).toContain('Did you mean "jokes"?');
    expect((await fault('joke,lable\n好笑,1\n', { labels: 'required' })).fix).toContain('Did you mean "lable"?');
    expect((await fault('正文,标题\n好笑,1\n')).fix).not.toContain('Did you mean');
  });

  it('of another separator says so', async () => {
    expect((await fault('headline;joke\n猫;好笑\n')).fix).toContain('semicolons');
    expect((await fault('headline\tjoke\n猫\t好笑\n')).fix).toContain('tabs');
  });

  it.each([
    ['an empty file', '', 'data.empty-file', undefined],
    ['a blank file', '\ufeff \n\n', 'data.empty-file', undefined],
    ['a header alone', 'headline,joke\n', 'data.no-rows', undefined],
    ['a column that is there twice', 'joke,joke\n好,笑\n', 'data.duplicate-column', 1],
    ['an unclosed quote', 'headline,joke\n猫,好\n\n狗,"好\n鱼,好\n', 'data.unclosed-quote', 4],
    ['a quote inside a field', 'headline,joke\n猫,好"笑\n', 'data.stray-quote', 2],
    ['text after a closing quote', 'headline,joke\n猫,"a\nb"\n猫,"好"笑\n', 'data.stray-quote', 4],
    ['a quote that a later row closes', 'headline,joke\n猫,"好\n狗,"笑"\n', 'data.stray-quote', 2],
    ['too many fields', 'headline,joke\n猫,"a\nb"\n猫,好,笑\n', 'data.field-count', 4],
    ['too few fields', 'headline,joke\n猫\n', 'data.field-count', 2],
    ['an empty joke', 'headline,joke\n猫,好\n狗, \n', 'data.empty-completion', 3],
    ['a control character', 'headline,joke\n猫,好\n狗,不\u0007好\n', 'data.control-character', 3],
    ['a zero byte', 'headline,joke\n猫,好\u0000\n', 'data.control-character', 2],
  ])('%s is refused with its place', async (_, content, code, line) => {
    expect(await fault(content)).toMatchObject({ code, where: line === undefined ? join(dir, 'data.csv') : at(line) });
  });

  it.each(['2', '', 'yes', '1.0', '-1'])('the label %j is refused', async (label) => {
    const error = await fault(`joke,label\n好,1\n笑,${label}\n`, { labels: 'required' });
    expect(error).toMatchObject({ code: 'data.invalid-label', where: at(3) });
    expect(error.message).toContain(JSON.stringify(label));
  });

  it('in another encoding is named', async () => {
    const text = 'headline,joke\n猫,好\n';
    const utf16 = await fault(Buffer.from(`\ufeff${text}`, 'utf16le'));
    expect(utf16.code).toBe('data.wrong-encoding');
    expect(utf16.message).toContain('UTF-16');
    const gbk = await fault(
      Buffer.concat([Buffer.from('headline,joke\n'), Buffer.from([0xc3, 0xa8, 0x2c, 0xba, 0xc3, 0x0a])]),
    );
    expect(gbk).toMatchObject({ code: 'data.wrong-encoding', where: at(2) });
    expect(gbk.fix).toContain('iconv -f GB18030');
    const broken = await fault(Buffer.concat([Buffer.from('headline,joke\n猫,好\n狗,'), Buffer.from([0xff, 0x0a])]));
    expect(broken).toMatchObject({ code: 'data.wrong-encoding', where: at(3) });
  });

  it('that is not there, or a folder, is said to be so', async () => {
    await expect(readRows(join(dir, 'none.csv'))).rejects.toMatchObject({ code: 'data.missing-file', exitCode: 2 });
    await expect(readRows(dir)).rejects.toMatchObject({ code: 'data.unreadable-file', exitCode: 2 });
  });
});
