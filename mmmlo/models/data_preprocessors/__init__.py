from .device_data_preprocessor import DeviceDataPreprocessor, crop_and_flip

__all__ = ['DeviceDataPreprocessor', 'crop_and_flip']
