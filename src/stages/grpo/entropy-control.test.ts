import { expect, it } from 'vitest';
import { adjusted, appliedCoef, initialControl } from './entropy-control.js';

const fixed = {
  entropyCoef: 0.01,
  useAdaptiveEntropy: false,
  entropyTarget: 0.5,
  entropyCoefDelta: 0.005,
  entropyCoefMin: 0,
  entropyCoefMax: 0.02,
};
const adaptive = { ...fixed, useAdaptiveEntropy: true };

it('a fixed weight acts from the first step on and stays', () => {
  const start = initialControl(fixed);
  expect(appliedCoef(start, fixed)).toBe(0.01);
  expect(adjusted(start, 0.1, fixed)).toBe(start);
});

it('an adaptive weight rises while the entropy is at most the target, falls else, and acts only in the first case', () => {
  let control = initialControl(adaptive);
  const seen: [number, number][] = [];
  for (const measured of [0.9, 0.5, 0.4, 0.3, 0.2, 0.8, 0.8, 0.8, 0.8, 0.8]) {
    const applied = appliedCoef(control, adaptive);
    control = adjusted(control, measured, adaptive);
    seen.push([applied, Number(control.coef.toFixed(6))]);
  }
  expect(seen.map(([, coef]) => coef)).toEqual([0.005, 0.01, 0.015, 0.02, 0.02, 0.015, 0.01, 0.005, 0, 0]);
  expect(seen.map(([applied]) => Number(applied.toFixed(6)))).toEqual([0, 0, 0.01, 0.015, 0.02, 0.02, 0, 0, 0, 0]);
});
