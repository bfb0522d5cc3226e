import { join } from 'node:path';
import { expect, it } from 'vitest';
import { EventWriter } from '../../../src/runs/tensorboard/writer.js';
import { temporaryFolder } from '../support/folder.js';
import { count, find, python } from '../support/python.js';

interface ReadBack {
  readonly scalars: Readonly<Record<string, readonly (readonly [number, number, number | string])[]>>;
  readonly texts: Readonly<Record<string, readonly (readonly [number, number, readonly string[]])[]>>;
}

const scalars: Readonly<Record<string, readonly number[]>> = {
  'train/loss': [3.25, 2.5, 1 / 3, 1e-30, 1e30],
  'train/奖励 均值': [-1.5, 0, -0, 2 ** -149],
  'train/not a number': [NaN, Infinity, -Infinity, 1],
};
const texts = { samples: ['# 标题\n\n一则**笑话**，带表情 😀', '', '第二步：\t制表符与"引号"'] };
const START = 1_700_000_000.25;

it('TensorBoard reads every scalar and text of our event files', async () => {
  const folder = join(await temporaryFolder(), 'tensorboard');
  const first = new EventWriter(folder);
  const later = new EventWriter(folder);
  for (const [tag, values] of Object.entries(scalars)) {
    for (const [i, value] of values.entries()) first.scalar(tag, i * 1_000_000_007, value, START + i);
  }
  first.close();
  for (const [tag, values] of Object.entries(texts)) {
    for (const [i, value] of values.entries()) later.text(tag, i, value, START + i);
  }
  later.close();

  const read = (await python('read_events', folder)) as ReadBack;
  const asRead = (value: number): number | string =>
    Number.isFinite(value) ? Math.fround(value) : { NaN: 'nan', Infinity: 'inf', '-Infinity': '-inf' }[String(value)]!;
  expect(read.scalars).toEqual(
    Object.fromEntries(
      Object.entries(scalars).map(([tag, values]) => [
        tag,
        values.map((value, i) => [i * 1_000_000_007, START + i, asRead(value)]),
      ]),
    ),
  );
  expect(read.texts).toEqual(
    Object.fromEntries(
      Object.entries(texts).map(([tag, values]) => [
        `${tag}/text_summary`,
        values.map((value, i) => [i, START + i, [value]]),
      ]),
    ),
  );
  const points = Object.values({ ...scalars, ...texts }).flat().length;
  find({
    check: 'TensorBoard reads our event files: scalars with NaN, infinities, Chinese tags and large steps; texts',
    peer: 'EventAccumulator',
    compared: `${count(points)} points`,
    largest: 0,
    allowed: 0,
  });
});

it('TensorBoard forgets what a resumed run writes again', async () => {
  const folder = join(await temporaryFolder(), 'resumed');
  const crashed = new EventWriter(folder);
  for (const step of [1, 2, 3, 4]) crashed.scalar('train/loss', step, 10 + step, START + step);
  crashed.close();
  const resumed = new EventWriter(folder, { purgeFrom: 3 });
  for (const step of [3, 4, 5]) resumed.scalar('train/loss', step, 20 + step, START + 10 + step);
  resumed.close();

  const read = (await python('read_events', folder)) as ReadBack;
  expect(read.scalars['train/loss']!.map(([step, , value]) => [step, value])).toEqual([
    [1, 11],
    [2, 12],
    [3, 23],
    [4, 24],
    [5, 25],
  ]);
  find({
    check: 'TensorBoard shows a resumed run without the steps that were done twice',
    peer: 'EventAccumulator',
    compared: '5 points',
    largest: 0,
    allowed: 0,
  });
});
