import { UserError } from '../errors.js';

/** How the next token is drawn; the filters apply in this order: penalty, temperature, top-k, top-p, min-p. */
export interface SamplingSettings {
  /** Logits are divided by it; 0 takes the likeliest token. */
  readonly temperature: number;
  /** Keeps the k likeliest tokens and every token equal to the last of them; 0 keeps all. */
  readonly topK: number;
  /** Keeps the smallest set of likeliest tokens whose probability reaches p (Holtzman et al. 2020); 1 keeps all. */
  readonly topP: number;
  /** Keeps tokens with at least this share of the likeliest token's probability (Nguyen et al. 2024); 0 keeps all. */
  readonly minP: number;
  /** Divides positive and multiplies negative logits of tokens seen before (Keskar et al. 2019); 1 changes nothing. */
  readonly repetitionPenalty: number;
}

/** Draws from the model's own distribution. */
export const unfiltered: SamplingSettings = { temperature: 1, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1 };

/** @throws UserError naming the first setting outside its range */
export function checkSettings({ temperature, topK, topP, minP, repetitionPenalty }: SamplingSettings): void {
  if (!(temperature >= 0 && temperature < Infinity)) throw outside('temperature', temperature, 'at least 0');
  if (!(Number.isInteger(topK) && topK >= 0)) throw outside('topK', topK, 'a whole number of at least 0');
  if (!(topP > 0 && topP <= 1)) throw outside('topP', topP, 'above 0 and at most 1');
  if (!(minP >= 0 && minP <= 1)) throw outside('minP', minP, 'between 0 and 1');
  if (!(repetitionPenalty > 0 && repetitionPenalty < Infinity)) {
    throw outside('repetitionPenalty', repetitionPenalty, 'above 0');
  }
}

const outside = (name: keyof SamplingSettings, value: number, range: string): UserError =>
  new UserError({
    code: 'generation.setting',
    message: `${name} is ${value}, but must be ${range}.`,
    where: name,
    fix: `Give a ${name} ${range}.`,
  });
