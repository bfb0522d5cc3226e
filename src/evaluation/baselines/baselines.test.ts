import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { stream } from '../../random.js';
import { addedValue } from './added-value.js';
import { runBaselines, type BaselineItem } from './baselines.js';
import { minimise } from './lbfgs.js';
import { fitLogisticRegression, predictProbabilities } from './logistic-regression.js';
import { addTransposed, fromColumns, multiply } from './sparse.js';
import { fitTfidf, transformTfidf } from './tfidf.js';

const uniforms = (seed: number) => {
  const random = stream(seed);
  return () => random.uniform();
};

describe('TF-IDF', () => {
  it('has the idf, norm and vocabulary of the definition', async () => {
    const texts = ['好好', '好吧', '吧'];
    const model = await fitTfidf(texts, { maxN: 2 });
    expect([...model.vocabulary.keys()]).toEqual(['好', '吧']);
    const idf = Math.log(4 / 3) + 1;
    expect(Array.from(model.idf)).toEqual([idf, idf]);
    const { rowStart, column, value } = await transformTfidf(model, ['好好吧', '坏']);
    expect(Array.from(rowStart)).toEqual([0, 2, 2]);
    expect(Array.from(column)).toEqual([0, 1]);
    expect(value[0]).toBeCloseTo(2 / Math.sqrt(5), 12);
    expect(value[1]).toBeCloseTo(1 / Math.sqrt(5), 12);
  });

  it('takes n-grams of code points, lower case, with runs of white space as one', async () => {
    const model = await fitTfidf(['A  b😀', 'a b😀'], { minN: 3, maxN: 3 });
    expect([...model.vocabulary.keys()]).toEqual(['a b', ' b😀']);
  });

  it('gives rows of length 1 or 0', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.string({ unit: 'grapheme' }), { minLength: 1, maxLength: 8 }), async (texts) => {
        const matrix = await transformTfidf(await fitTfidf(texts), texts);
        for (let row = 0; row < matrix.rows; row += 1) {
          const entries = matrix.value.subarray(matrix.rowStart[row], matrix.rowStart[row + 1]);
          const norm = entries.reduce((sum, entry) => sum + entry * entry, 0);
          expect(entries.length === 0 ? 1 : norm).toBeCloseTo(1, 12);
        }
      }),
    );
  });
});

describe('sparse products', () => {
  it('equal the dense ones', () => {
    const matrix = fromColumns([
      [1, 2, 3],
      [4, 5, 6],
    ]);
    const out = new Float64Array(3);
    multiply(matrix, Float64Array.of(2, -1), 0.5, out);
    expect(Array.from(out)).toEqual([-1.5, -0.5, 0.5]);
    const transposed = Float64Array.of(10, 20);
    addTransposed(matrix, Float64Array.of(1, 0, -1), transposed);
    expect(Array.from(transposed)).toEqual([8, 18]);
  });
});

describe('minimise', () => {
  it('finds the minimum of badly scaled quadratics', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.record({ scale: fc.integer({ min: -3, max: 3 }), at: fc.integer({ min: -9, max: 9 }) }), {
          minLength: 1,
          maxLength: 8,
        }),
        async (terms) => {
          const { x, converged } = await minimise(
            (point, gradient) =>
              terms.reduce((sum, { scale, at }, i) => {
                const curvature = 10 ** scale;
                gradient[i] = curvature * (point[i]! - at);
                return sum + (curvature / 2) * (point[i]! - at) ** 2;
              }, 0),
            new Float64Array(terms.length),
            { tolerance: 1e-7 },
          );
          expect(converged).toBe(true);
          terms.forEach(({ at }, i) => {
            expect(x[i]).toBeCloseTo(at, 3);
          });
        },
      ),
      { numRuns: 50 },
    );
  });

  it('says when the iterations did not suffice', async () => {
    const rosenbrock = (p: Float64Array, g: Float64Array) => {
      const [x, y] = [p[0]!, p[1]!];
      g[0] = -2 * (1 - x) - 400 * x * (y - x * x);
      g[1] = 200 * (y - x * x);
      return (1 - x) ** 2 + 100 * (y - x * x) ** 2;
    };
    expect((await minimise(rosenbrock, Float64Array.of(-1, 1), { maxIterations: 3 })).converged).toBe(false);
    const solved = await minimise(rosenbrock, Float64Array.of(-1, 1));
    expect(solved.converged).toBe(true);
    expect(solved.x[0]).toBeCloseTo(1, 5);
  });
});

describe('logistic regression', () => {
  it('satisfies the optimality conditions of its objective', async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer(), fc.constantFrom(0.1, 1, 10), async (seed, C) => {
        const random = uniforms(seed);
        const columns = Array.from({ length: 3 }, () => Array.from({ length: 30 }, () => 2 * random() - 1));
        const labels = columns[0]!.map((x, i) => (i < 2 ? i : Number(x + random() > 0.5)));
        const features = fromColumns(columns);
        const model = await fitLogisticRegression(features, labels, { C, tolerance: 1e-9 });
        const residuals = predictProbabilities(model, features).map((p, i) => p - labels[i]!);
        expect(residuals.reduce((sum, r) => sum + r, 0)).toBeCloseTo(0, 6);
        columns.forEach((column, j) => {
          const gradient = C * column.reduce((sum, x, i) => sum + x * residuals[i]!, 0) + model.weights[j]!;
          expect(gradient).toBeCloseTo(0, 5);
        });
      }),
      { numRuns: 20 },
    );
  });

  it('matches the closed form of two points', async () => {
    // Minimises 2C·log(1 + e⁻ʷ) + w²/2 for x = ±1: w = 2C / (1 + eʷ).
    const model = await fitLogisticRegression(fromColumns([[1, -1]]), [1, 0], { C: 1, tolerance: 1e-10 });
    expect(model.weights[0]).toBeCloseTo(2 / (1 + Math.exp(model.weights[0]!)), 8);
    expect(model.intercept).toBeCloseTo(0, 8);
  });
});

describe('runBaselines', () => {
  /** The word 笑 in the text gives the label away; prompts and lengths tell nothing. */
  const items = (count: number, seed: number): BaselineItem[] => {
    const random = uniforms(seed);
    const word = () => '今天地方人来去大小山水'[Math.floor(random() * 11)]!;
    return Array.from({ length: count }, (_, i) => {
      const label = i % 3 === 0 ? 0 : 1;
      const text = Array.from({ length: 6 }, word).join('') + (label === 1 ? '笑' : '哭');
      const context = [word() + word(), word()];
      return { context, text, inputs: [`${context[0]!}：${text}`], label };
    });
  };

  it('tells what can be learned from each part', async () => {
    const progress: string[] = [];
    const results = await runBaselines({
      train: items(150, 1),
      validation: items(90, 2),
      onProgress: ({ done, total, note }) => progress.push(`${done}/${total} ${note}`),
    });
    const auc = Object.fromEntries(results.map(({ name, metrics }) => [name, metrics.rocAuc!]));
    expect(results.map(({ name }) => name)).toEqual(['majority', 'length', 'prompt', 'text', 'input', 'everything']);
    expect(results.every(({ converged }) => converged)).toBe(true);
    expect(auc['majority']).toBe(0.5);
    expect(auc['length']).toBe(0.5);
    expect(auc['prompt']).toBeLessThan(0.7);
    expect(auc['text']).toBe(1);
    expect(auc['input']).toBeGreaterThan(0.99);
    expect(auc['everything']).toBeGreaterThan(0.99);
    expect(results[0]!.metrics.confusion[1]).toEqual([0, 60]);
    expect(progress).toEqual([
      '0/6 majority',
      '1/6 length',
      '2/6 prompt',
      '3/6 text',
      '4/6 input',
      '5/6 everything',
      '6/6 done',
    ]);
  });

  it('gives the same scores again', async () => {
    const options = { train: items(60, 3), validation: items(30, 4) };
    const [first, second] = [await runBaselines(options), await runBaselines(options)];
    expect(second.map(({ scores }) => scores)).toEqual(first.map(({ scores }) => scores));
  });

  it('refuses empty sets and a single label', async () => {
    await expect(runBaselines({ train: [], validation: items(3, 1) })).rejects.toThrow(/no training rows/);
    await expect(runBaselines({ train: items(3, 1), validation: [] })).rejects.toThrow(/no validation rows/);
    const humorous = items(9, 1).filter(({ label }) => label === 1);
    await expect(runBaselines({ train: humorous, validation: humorous })).rejects.toThrow(/all 6 training rows/);
  });

  it('stops when aborted', async () => {
    const reason = new Error('stopped by hand');
    const controller = new AbortController();
    const running = runBaselines({
      train: items(200, 1),
      validation: items(20, 2),
      signal: controller.signal,
      onProgress: ({ note }) => {
        if (note === 'prompt') controller.abort(reason);
      },
    });
    await expect(running).rejects.toBe(reason);
  });
});

describe('addedValue', () => {
  const random = uniforms(11);
  const labels = Array.from({ length: 400 }, () => Number(random() < 0.6));
  const noisy = (strength: number) =>
    labels.map((label) => 1 / (1 + Math.exp(-(strength * (label - 0.5) + 2 * (random() - 0.5)))));
  const promptScores = noisy(1);
  const lengths = labels.map((label) => 20 + 5 * label + Math.floor(20 * random()));

  it('finds what a good scorer adds', async () => {
    const added = await addedValue({ labels, promptScores, lengths, scores: noisy(3), resamples: 200 });
    expect(added!.difference.low).toBeGreaterThan(0);
    expect(added!.aucWith).toBeGreaterThan(added!.aucWithout);
  });

  it('finds nothing in a scorer that repeats the prompt or the length', async () => {
    for (const scores of [promptScores, lengths.map((length) => length / 100)]) {
      const added = await addedValue({ labels, promptScores, lengths, scores, resamples: 200 });
      expect(Math.abs(added!.difference.estimate)).toBeLessThan(0.01);
    }
  });

  it('is null where a label is too rare to cross-fit', async () => {
    expect(
      await addedValue({
        labels: [1, 1, 1, 0],
        promptScores: [1, 1, 1, 1],
        lengths: [1, 1, 1, 1],
        scores: [1, 1, 1, 1],
      }),
    ).toBeNull();
  });
});
