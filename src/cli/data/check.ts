import { checkData } from '../../data/check.js';
import type { Setup } from '../entry.js';
import { addConfigOptions, readConfig, readReporting } from '../options.js';
import { showSummary } from './summary.js';
import { loadSource } from './source.js';

/** `data check [DIR]`: what is in the data, as text or with `--json` as one document. */
export const setup: Setup = (command, host) => {
  command.argument('[dir]', 'Folder with sft_train.csv and others; otherwise data.dir or data.file.');
  addConfigOptions(command, 'data');
  command.action(async (dir: string | undefined) => {
    const { data } = await readConfig(command, 'data', [], { 'data.dir': dir });
    const { splitSeed: seed, validationFraction, templates } = data;
    const summary = checkData(await loadSource(data), templates, { seed, validationFraction });
    host.print(readReporting(command).json ? JSON.stringify(summary) : showSummary(summary));
  });
};
