import { describe, expect, it } from 'vitest';
import { compareModels, comparisonSchema, type TextRecord } from './compare.js';

const options = { seed: 1, resamples: 400, training: ['猫在训练里睡着了，谁也没有叫醒它，它一直睡到今天'] };

const PROMPTS = ['甲', '乙', '丙', '丁', '戊', '己'];

/** Two texts to each prompt; the second of a prompt ends by itself where `ended` says so. */
function written(
  model: string,
  rewardOf: (prompt: number, sample: number) => number,
  textOf: (prompt: number, sample: number) => string = (prompt, sample) => `${PROMPTS[prompt]!}的故事${sample}`,
): TextRecord[] {
  return PROMPTS.flatMap((prompt, i) =>
    [0, 1].map((sample) => ({
      model,
      template: 'words',
      prompt,
      words: [prompt, '故事'],
      sample,
      completion: textOf(i, sample),
      tokens: 5,
      finishReason: sample === 0 ? ('stop' as const) : ('length' as const),
      reward: rewardOf(i, sample),
    })),
  );
}

const base = written('base', (prompt, sample) => prompt + sample);

describe('compareModels', () => {
  it('averages what was written to a prompt before it looks at prompts', () => {
    const { prompts, samplesPerPrompt, models, steps } = compareModels(base, options);
    expect({ prompts, samplesPerPrompt, steps }).toEqual({ prompts: 6, samplesPerPrompt: 2, steps: [] });
    expect(models).toHaveLength(1);
    expect(models[0]).toMatchObject({ name: 'base', eosShare: 0.5, reward: { estimate: 3, rows: 6 } });
    expect(models[0]!.summary).toMatchObject({ texts: 12, bothWordsShare: 1, copiedShare: 0, garbageShare: 0 });
  });

  it('compares each model with the one before it, prompt by prompt', () => {
    const sft = written('SFT', (prompt, sample) => prompt + sample + 1);
    const grpo = written('GRPO', (prompt) => 10 - prompt);
    const { steps, models } = compareModels([...base, ...sft, ...grpo], options);
    expect(models.map(({ name }) => name)).toEqual(['base', 'SFT', 'GRPO']);
    expect(steps.map(({ before, after }) => [before, after])).toEqual([
      ['base', 'SFT'],
      ['SFT', 'GRPO'],
    ]);
    // Every prompt gained exactly 1: pairing leaves nothing to doubt.
    expect(steps[0]!.difference).toMatchObject({ estimate: 1, low: 1, high: 1 });
    expect(steps[0]!.length).toMatchObject({ gain: { estimate: 1 }, explainedByLength: 0, share: 0 });
    expect(steps[1]!.difference.estimate).toBeCloseTo(3.5, 12);
    expect(steps[1]!.difference.low).toBeLessThan(steps[1]!.difference.high);
  });

  it('pairs texts by their prompt, whatever their order', () => {
    const grpo = written('GRPO', (prompt, sample) => 2 * prompt + sample + 1);
    const inOrder = compareModels([...base, ...grpo], options);
    const shuffled = compareModels([...base, ...[...grpo].reverse()], options);
    expect(shuffled.steps).toEqual(inOrder.steps);
    expect(shuffled.models[1]!.reward).toEqual(inOrder.models[1]!.reward);
  });

  it('says how much of a gain length explains', () => {
    const text = (characters: number): string => '啊'.repeat(characters);
    const byLength = (model: string, more: number): TextRecord[] =>
      written(
        model,
        (prompt) => (prompt + 1 + more) / 2,
        (prompt) => text(prompt + 1 + more),
      );
    const { steps } = compareModels([...byLength('SFT', 0), ...byLength('GRPO', 4)], options);
    expect(steps[0]!.length).toMatchObject({ meanLengthBefore: 3.5, meanLengthAfter: 7.5 });
    expect(steps[0]!.length.slope).toBeCloseTo(0.5, 12);
    expect(steps[0]!.length.share).toBeCloseTo(1, 12);
  });

  it('finds texts copied from training, and words that were left out', () => {
    const copies = written(
      'SFT',
      () => 0,
      (_, sample) => (sample === 0 ? options.training[0]! : '没有那两个词的话'),
    );
    const { summary } = compareModels(copies, options).models[0]!;
    expect(summary).toMatchObject({ copiedShare: 0.5, bothWordsShare: 0 });
  });

  it('gives the same figures again, in the form that evaluation.json has', () => {
    const records = [...base, ...written('GRPO', (prompt, sample) => 5 - prompt * sample)];
    const comparison = compareModels(records, options);
    expect(compareModels(records, options)).toEqual(comparison);
    expect(comparisonSchema.parse(JSON.parse(JSON.stringify(comparison)))).toEqual(comparison);
  });

  it('of nothing is nothing', () => {
    expect(compareModels([], options)).toEqual({ prompts: 0, samplesPerPrompt: 0, models: [], steps: [] });
  });

  it('refuses models that wrote to different prompts', () => {
    const fewer = written('GRPO', () => 1).slice(0, 4);
    expect(() => compareModels([...base, ...fewer], options)).toThrow(/2 and 6 prompts/);
    const elsewhere = written('GRPO', () => 1).map((record) => ({ ...record, prompt: `${record.prompt}?` }));
    expect(() => compareModels([...base, ...elsewhere], options)).toThrow(/GRPO wrote nothing to the prompt 甲/);
  });
});
