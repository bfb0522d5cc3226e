import { describe, expect, it } from 'vitest';
import { stream } from '../random.js';
import { hideTokens } from './token-dropout.js';

const CLS = 2;
const SEP = 3;
const MASK = 4;
const special = new Set([CLS, SEP]);
const text = [CLS, ...Array.from({ length: 998 }, (_, i) => 10 + (i % 90)), SEP];

describe('hideTokens', () => {
  it('hides about the share that is asked for, never what frames a text', () => {
    const [hidden] = hideTokens([text], { rate: 0.2, maskId: MASK, special }, stream(1));
    expect(hidden![0]).toBe(CLS);
    expect(hidden!.at(-1)).toBe(SEP);
    const changed = hidden!.filter((id, i) => id !== text[i]);
    expect(new Set(changed)).toEqual(new Set([MASK]));
    expect(changed.length).toBeGreaterThan(150);
    expect(changed.length).toBeLessThan(250);
  });

  it('draws the same from the same stream, and others at another step', () => {
    const rule = { rate: 0.5, maskId: MASK, special };
    expect(hideTokens([text], rule, stream(1, 7))).toEqual(hideTokens([text], rule, stream(1, 7)));
    expect(hideTokens([text], rule, stream(1, 8))).not.toEqual(hideTokens([text], rule, stream(1, 7)));
  });

  it('leaves everything where nothing is to be hidden', () => {
    expect(hideTokens([text], { rate: 0, maskId: -1, special }, stream(1))).toEqual([text]);
  });
});
