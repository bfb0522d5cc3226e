import { z } from 'zod';
import { key } from './key.js';
import { count } from './training.js';

interface SamplingDefaults {
  temperature: number;
  topP: number;
  maxNewTokens: number;
}

/** How the next token is drawn; `flags` gives the keys their own command-line flags. */
export function samplingKeys(defaults: SamplingDefaults, flags = false) {
  const note = (flag: string) => (flags ? { flag } : {});
  return {
    maxNewTokens: key(
      count().default(defaults.maxNewTokens),
      'Most tokens to write after the prompt.',
      note('--max-new-tokens <n>'),
    ),
    temperature: key(
      z.number().min(0).default(defaults.temperature),
      'Divides the logits; 0 always takes the likeliest token.',
      note('--temperature <t>'),
    ),
    topP: key(
      z.number().gt(0).max(1).default(defaults.topP),
      'Keeps the fewest likeliest tokens whose probabilities reach this sum; 1 keeps all.',
      note('--top-p <p>'),
    ),
    topK: key(count(0).default(0), 'Keeps this many likeliest tokens; 0 keeps all.', note('--top-k <k>')),
  };
}
