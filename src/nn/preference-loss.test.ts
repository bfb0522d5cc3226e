import { afterAll, describe, expect, it } from 'vitest';
import fc from 'fast-check';
import { backward } from '../autodiff/backward.js';
import { tensor } from '../graph/tensor.js';
import { reduceSum } from '../ops/build.js';
import { newGraph } from '../ops/registry.js';
import { Runtime } from '../runtime/runtime.js';
import { bradleyTerryLoss, dpoLoss, type DpoLossSettings } from './preference-loss.js';

const runtime = new Runtime({ threads: 1 });
afterAll(() => runtime.close());

const logSigmoid = (x: number): number => Math.min(x, 0) - Math.log1p(Math.exp(-Math.abs(x)));
const P = 4;
const finite = fc.float({ min: -60, max: 60, noNaN: true });
const four = fc.tuple(finite, finite, finite, finite);

/** The formulas in double precision. */
const reference = (
  { lossType, beta, labelSmoothing: e }: DpoLossSettings,
  [chosen, rejected]: [number, number],
  [m, n]: [number, number],
): number => {
  const x = beta * (chosen - rejected);
  if (lossType === 'ipo') return (chosen / m - rejected / n - 1 / (2 * beta)) ** 2;
  if (lossType === 'sigmoid') return -(1 - e) * logSigmoid(x) - e * logSigmoid(-x);
  return (-(1 - e) * logSigmoid(x) + e * logSigmoid(-x)) / (1 - 2 * e);
};

describe('the DPO loss', () => {
  it.each<DpoLossSettings>([
    { lossType: 'sigmoid', beta: 0.1, labelSmoothing: 0 },
    { lossType: 'sigmoid', beta: 0.3, labelSmoothing: 0.2 },
    { lossType: 'robust', beta: 0.5, labelSmoothing: 0.1 },
    { lossType: 'ipo', beta: 0.1, labelSmoothing: 0 },
  ])('and its gradient are those of the formula: $lossType, smoothing $labelSmoothing', async (settings) => {
    const graph = newGraph();
    const names = ['chosen', 'rejected', 'chosenTokens', 'rejectedTokens'] as const;
    const [chosen, rejected, chosenTokens, rejectedTokens] = names.map((name) =>
      graph.input(name, 'float64', ['P']),
    ) as [never, never, never, never];
    const losses = dpoLoss({ chosen, rejected, chosenTokens, rejectedTokens }, settings);
    const [gradient] = backward(reduceSum(losses), [chosen]);
    graph.output('losses', losses);
    graph.output('gradient', gradient!);
    const program = await runtime.compile(graph);
    await fc.assert(
      fc.asyncProperty(four, four, async (a, b) => {
        const tokens = [3, 5, 2, 7];
        const results = await program.run({
          chosen: tensor('float64', [P], a),
          rejected: tensor('float64', [P], b),
          ...(program.inputs.has('chosenTokens') && {
            chosenTokens: tensor('float64', [P], tokens),
            rejectedTokens: tensor('float64', [P], [...tokens].reverse()),
          }),
        });
        for (let i = 0; i < P; i++) {
          const lengths: [number, number] = [tokens[i]!, tokens[P - 1 - i]!];
          const at = (shift: number): number => reference(settings, [a[i]! + shift, b[i]!], lengths);
          const scale = Math.max(1, Math.abs(at(0)));
          expect(Math.abs(Number(results['losses']!.data[i]) - at(0)) / scale).toBeLessThan(1e-10);
          const slope = (at(1e-5) - at(-1e-5)) / 2e-5;
          expect(Math.abs(Number(results['gradient']!.data[i]) - slope) / Math.max(1, scale)).toBeLessThan(1e-6);
        }
      }),
      { numRuns: 25 },
    );
  });
});

describe('the Bradley–Terry loss', () => {
  it.each([0, 0.01])('and its gradient are those of the formula, centering %d', async (centering) => {
    const graph = newGraph();
    const [chosen, rejected] = [graph.input('chosen', 'float64', ['P']), graph.input('rejected', 'float64', ['P'])];
    const losses = bradleyTerryLoss(chosen, rejected, centering);
    graph.output('losses', losses);
    graph.output('gradient', backward(reduceSum(losses), [chosen])[0]!);
    const program = await runtime.compile(graph);
    await fc.assert(
      fc.asyncProperty(four, four, async (a, b) => {
        const feeds = { chosen: tensor('float64', [P], a), rejected: tensor('float64', [P], b) };
        const results = await program.run(feeds);
        for (let i = 0; i < P; i++) {
          const [r, s] = [a[i]!, b[i]!];
          const value = -logSigmoid(r - s) + centering * (r + s) ** 2;
          const slope = -1 / (1 + Math.exp(r - s)) + 2 * centering * (r + s);
          expect(Number(results['losses']!.data[i])).toBeCloseTo(value, 9);
          expect(Number(results['gradient']!.data[i])).toBeCloseTo(slope, 9);
        }
      }),
      { numRuns: 25 },
    );
  });
});
