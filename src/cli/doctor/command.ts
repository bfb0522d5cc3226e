import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { doctor } from '../../doctor/doctor.js';
import type { Setup } from '../entry.js';
import { addConfigOptions, readConfig, readReporting } from '../options.js';
import { showDiagnosis } from './text.js';

/** The recipes that ship with the package and are whole pipelines. */
const SHIPPED = ['demo', 'nano', 'qwen3-1.7b'];
const shipped = (name: string): string => fileURLToPath(new URL(`../../../recipes/${name}.yaml`, import.meta.url));

/** `doctor [RECIPE]`: what the machine brings and what the recipe, or each shipped one, needs; `--json` as one document. */
export const setup: Setup = (command, host) => {
  command.argument('[recipe]', 'YAML file with settings; otherwise every recipe that ships.');
  addConfigOptions(command, 'doctor');
  command.action(async (given: string | undefined) => {
    const files = given === undefined ? SHIPPED.map(shipped) : [given];
    const recipes = [];
    for (const recipe of files) recipes.push({ recipe, config: await readConfig(command, 'doctor', [recipe]) });
    const diagnosis = await doctor(recipes, resolve('runs'));
    host.print(readReporting(command).json ? JSON.stringify(diagnosis) : showDiagnosis(diagnosis));
  });
};
