import fc from 'fast-check';
import { distance } from 'fastest-levenshtein';
import { describe, expect, it } from 'vitest';
import { jsonSchema } from './json-schema.js';
import { loadConfig } from './load.js';
import { nearestKey } from './nearest.js';
import { STAGE_NAMES } from './stages.js';
import { dottedKeys, keyTree, type Leaf, recipeTree } from './tree.js';

describe.each(STAGE_NAMES)('keys of %s', (stage) => {
  const keys = [...dottedKeys(keyTree(stage))];

  it('have a sentence of help each', () => {
    for (const [dotted, node] of keys)
      expect([dotted, node.help]).toEqual([dotted, expect.stringMatching(/^\S.{8,}\.$/)]);
  });

  it('are all in the JSON Schema, which requires none and shows no notes', () => {
    const text = JSON.stringify(jsonSchema(stage));
    for (const [dotted] of keys) expect(text).toContain(`"${dotted.split('.').at(-1)!}"`);
    expect(text).not.toMatch(/"x-|"required"/);
  });
});

describe('JSON Schema', () => {
  it('is the same on every machine', () => {
    expect(jsonSchema('run').properties?.['threads']).not.toHaveProperty('default');
  });
});

describe('defaults', () => {
  it('written out again change nothing', async () => {
    const flags = { model: '/m', rm: '/r', 'data.dir': '/d' };
    const plain = await loadConfig({ stage: 'grpo', flags });
    const leaves = [...dottedKeys(keyTree('grpo'))].filter((pair): pair is [string, Leaf] => pair[1].kind === 'leaf');
    const given = leaves.filter(([dotted, leaf]) => leaf.defaultText !== undefined && dotted !== 'threads');
    const sets = given.map(([dotted, leaf]) => `${dotted}=${leaf.defaultText!}`);
    expect(await loadConfig({ stage: 'grpo', flags, sets })).toEqual(plain);
  });
});

describe('nearestKey', () => {
  const known = [...dottedKeys(recipeTree())].map(([dotted]) => dotted);

  it('finds the key, or one as near, when a letter is missing', () => {
    const long = known.filter((key) => key.split('.').at(-1)!.length > 5);
    fc.assert(
      fc.property(fc.constantFrom(...long), fc.nat(), (key, at) => {
        const path = key.split('.');
        const last = path.at(-1)!;
        const cut = at % last.length;
        const misspelt = [...path.slice(0, -1), last.slice(0, cut) + last.slice(cut + 1)];
        // Two keys may be equally near: heads and kvHeads to kHeads.
        expect(
          distance(nearestKey(misspelt, known)!.toLowerCase(), misspelt.join('.').toLowerCase()),
        ).toBeLessThanOrEqual(1);
      }),
    );
  });

  it('finds a key that stands in another section, and always some key', () => {
    expect(nearestKey(['sft', 'beta'], known)).toBe('grpo.beta');
    expect(nearestKey(['qqqq'], known)).toBeDefined();
    expect(nearestKey(['x'], [])).toBeUndefined();
  });
});
