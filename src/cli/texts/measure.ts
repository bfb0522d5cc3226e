import { z } from 'zod';
import type { StageConfig } from '../../config/index.js';
import {
  classifyInput,
  type ClassifyInput,
  type ClassifyOutput,
  scoreInput,
  type ScoreInput,
  type ScoreOutput,
} from '../../config/records.js';
import type { StageContext } from '../../runs/events.js';
import type { Setup } from '../entry.js';
import { listening } from '../listen.js';
import { addConfigOptions, readConfig, readReporting } from '../options.js';
import { type LinesOf, readLines } from './read-lines.js';
import { outputFile, type Results, writeResults } from './write-lines.js';

/** Measures each input, in order. */
export type Measure<Name extends 'score' | 'classify', Input, Output> = (
  config: StageConfig<Name>,
  inputs: readonly Input[],
  context: StageContext,
) => Results<Output>;

const options = z.object({ input: z.string(), out: z.string().optional() });

/** `score`: log-probabilities of the completions in a JSON Lines file. */
export function scoreCommand(score: Measure<'score', ScoreInput, ScoreOutput>): Setup {
  const forms = '{"prompt", "completion"}, {"messages": [...]} or {"input_ids": [...], "completion_mask": [...]}';
  return measureCommand('score', score, { schema: scoreInput, forms });
}

/** `classify`: reward-model logits of the texts in a JSON Lines file. */
export function classifyCommand(classify: Measure<'classify', ClassifyInput, ClassifyOutput>): Setup {
  const forms = '{"text"}, {"prompt", "completion"} or {"input_ids": [...]}';
  return measureCommand('classify', classify, { schema: classifyInput, forms });
}

function measureCommand<Name extends 'score' | 'classify', Schema extends z.ZodType<object>, Output>(
  name: Name,
  measure: Measure<Name, z.output<Schema>, Output>,
  lines: Omit<LinesOf<Schema>, 'file'>,
): Setup {
  return (command, host) => {
    command
      .requiredOption('--input <file>', 'JSON Lines file; - reads standard input.')
      .option('--out <dir>', `Also write ${name}.jsonl into this folder.`);
    addConfigOptions(command, name);
    command.action(async () => {
      const given = options.parse(command.opts());
      const config = await readConfig(command, name);
      const file = outputFile(given.out, name);
      const inputs = await readLines({ file: given.input, ...lines });
      const show = (output: Output): { line: string; print: string } => {
        const line = JSON.stringify(output);
        return { line, print: line };
      };
      await listening({ ...readReporting(command), json: false }, host, (context) =>
        writeResults(measure(config, inputs, context), show, host, file),
      );
    });
  };
}
