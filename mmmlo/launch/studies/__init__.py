"""Studies: one config, varied in one thing, trained with several seeds and compared."""

from .definitions import Study, StudyError, Variant, job_config, read_studies
from .jobs import Job, JobError, JobRunner
from .record import JobRecord, StudyRecord
from .report import Quantity, quantities, study_table

__all__ = [
    'Job', 'JobError', 'JobRecord', 'JobRunner', 'Quantity', 'Study', 'StudyError', 'StudyRecord', 'Variant', 'job_config',
    'quantities', 'read_studies', 'study_table'
]
